select * from (
select
        event_id,
        'signup_started' as event_table_name,
        'Signup Started' as event_name,
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
        cast(null as nvarchar(4000)) as [referrer],
        cast(null as nvarchar(4000)) as [domain],
        cast(null as nvarchar(4000)) as [path],
        cast(null as nvarchar(4000)) as [query],
        cast(null as nvarchar(4000)) as [title],
        cast(null as nvarchar(4000)) as [utm_source],
        cast(null as nvarchar(4000)) as [utm_medium],
        cast(null as nvarchar(4000)) as [utm_campaign],
        cast(null as nvarchar(4000)) as [utm_term],
        cast(null as nvarchar(4000)) as [utm_content],
        cast([_hub_dump] as BIGINT) as [_hub_dump],
        concat('{', substring(case when [form] is null then '' else concat(',"form":"', replace(replace(replace(replace(replace(cast([form] as nvarchar(4000)), char(92), concat(char(92), char(92))), char(34), concat(char(92), char(34))), char(10), concat(char(92), 'n')), char(13), concat(char(92), 'r')), char(9), concat(char(92), 't')), '"') end, 2, 65535), '}') as properties
    from "shop_heap_connect"."signup_started"
        ) as told
        left join "shop_models"."stg_heap__user_migrations" as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
) as of_1
union all
select * from (
select
        event_id,
        'email_verified' as event_table_name,
        'Email Verified' as event_name,
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
        cast(null as nvarchar(4000)) as [referrer],
        cast(null as nvarchar(4000)) as [domain],
        cast(null as nvarchar(4000)) as [path],
        cast(null as nvarchar(4000)) as [query],
        cast(null as nvarchar(4000)) as [title],
        cast(null as nvarchar(4000)) as [utm_source],
        cast(null as nvarchar(4000)) as [utm_medium],
        cast(null as nvarchar(4000)) as [utm_campaign],
        cast(null as nvarchar(4000)) as [utm_term],
        cast(null as nvarchar(4000)) as [utm_content],
        cast([_hub_dump] as BIGINT) as [_hub_dump],
        '{}' as properties
    from "shop_heap_connect"."email_verified"
        ) as told
        left join "shop_models"."stg_heap__user_migrations" as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
) as of_2
union all
select * from (
select
        event_id,
        'first_purchase' as event_table_name,
        'First Purchase' as event_name,
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
        cast(null as nvarchar(4000)) as [referrer],
        cast(null as nvarchar(4000)) as [domain],
        cast(null as nvarchar(4000)) as [path],
        cast(null as nvarchar(4000)) as [query],
        cast(null as nvarchar(4000)) as [title],
        cast(null as nvarchar(4000)) as [utm_source],
        cast(null as nvarchar(4000)) as [utm_medium],
        cast(null as nvarchar(4000)) as [utm_campaign],
        cast(null as nvarchar(4000)) as [utm_term],
        cast(null as nvarchar(4000)) as [utm_content],
        cast([_hub_dump] as BIGINT) as [_hub_dump],
        concat('{', substring(case when [amount] is null then '' else concat(',"amount":"', replace(replace(replace(replace(replace(cast([amount] as nvarchar(4000)), char(92), concat(char(92), char(92))), char(34), concat(char(92), char(34))), char(10), concat(char(92), 'n')), char(13), concat(char(92), 'r')), char(9), concat(char(92), 't')), '"') end, 2, 65535), '}') as properties
    from "shop_heap_connect"."first_purchase"
        ) as told
        left join "shop_models"."stg_heap__user_migrations" as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
) as of_3
union all
select * from (
select
        event_id,
        'feature_export' as event_table_name,
        'Feature: Export' as event_name,
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
        cast(null as nvarchar(4000)) as [referrer],
        cast(null as nvarchar(4000)) as [domain],
        cast(null as nvarchar(4000)) as [path],
        cast(null as nvarchar(4000)) as [query],
        cast(null as nvarchar(4000)) as [title],
        cast(null as nvarchar(4000)) as [utm_source],
        cast(null as nvarchar(4000)) as [utm_medium],
        cast(null as nvarchar(4000)) as [utm_campaign],
        cast(null as nvarchar(4000)) as [utm_term],
        cast(null as nvarchar(4000)) as [utm_content],
        cast([_hub_dump] as BIGINT) as [_hub_dump],
        '{}' as properties
    from "shop_heap_connect"."feature_export"
        ) as told
        left join "shop_models"."stg_heap__user_migrations" as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
) as of_4
