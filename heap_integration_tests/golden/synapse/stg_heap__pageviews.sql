select
        event_id,
        'pageviews' as event_table_name,
        'Pageview' as event_name,
        resolved_user_id as user_id,
        session_id,
        [time] as occurred_at,
        coalesce([_hub_dump], 0) as arrived,
        case when [domain] is null then null else concat([domain], coalesce([path], ''), case when [query] is null or [query] = '' then '' when [query] like '?%' then [query] else concat('?', [query]) end) end as page_url,
        title as page_title,
        referrer,
        utm_source,
        utm_medium,
        utm_campaign,
        utm_term,
        utm_content,
        platform,
        device_type,
        browser,
        country,
        region,
        city,
        properties
    from (
        select
            told.*,
            coalesce(migrations.to_user_id, told.user_id) as resolved_user_id,
            row_number() over (
                partition by told.event_id order by coalesce(told.[_hub_dump], 0) desc, told.[time]
            ) as nth
        from (
            select
        cast([event_id] as nvarchar(4000)) as [event_id],
        cast([user_id] as nvarchar(4000)) as [user_id],
        cast([session_id] as nvarchar(4000)) as [session_id],
        cast([time] as DATETIME2(6)) as [time],
        cast([library] as nvarchar(4000)) as [library],
        cast([platform] as nvarchar(4000)) as [platform],
        cast(null as nvarchar(4000)) as [device_type],
        cast([browser] as nvarchar(4000)) as [browser],
        cast([country] as nvarchar(4000)) as [country],
        cast(null as nvarchar(4000)) as [region],
        cast(null as nvarchar(4000)) as [city],
        cast([referrer] as nvarchar(4000)) as [referrer],
        cast([domain] as nvarchar(4000)) as [domain],
        cast([path] as nvarchar(4000)) as [path],
        cast([query] as nvarchar(4000)) as [query],
        cast([title] as nvarchar(4000)) as [title],
        cast(null as nvarchar(4000)) as [utm_source],
        cast(null as nvarchar(4000)) as [utm_medium],
        cast(null as nvarchar(4000)) as [utm_campaign],
        cast(null as nvarchar(4000)) as [utm_term],
        cast(null as nvarchar(4000)) as [utm_content],
        cast([_hub_dump] as BIGINT) as [_hub_dump],
        concat('{', substring(case when [plan_seen] is null then '' else concat(',"plan_seen":"', replace(replace(replace(replace(replace(cast([plan_seen] as nvarchar(4000)), char(92), concat(char(92), char(92))), char(34), concat(char(92), char(34))), char(10), concat(char(92), 'n')), char(13), concat(char(92), 'r')), char(9), concat(char(92), 't')), '"') end, 2, 65535), '}') as properties
    from "shop_heap_connect"."pageviews"
        ) as told
        left join "shop_models"."stg_heap__user_migrations" as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
