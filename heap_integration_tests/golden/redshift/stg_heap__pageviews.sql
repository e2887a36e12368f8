select
        event_id,
        'pageviews' as event_table_name,
        'Pageview' as event_name,
        resolved_user_id as user_id,
        session_id,
        "time" as occurred_at,
        coalesce("_hub_dump", 0) as arrived,
        case when "domain" is null then null else "domain" || coalesce("path", '') || case when "query" is null or "query" = '' then '' when "query" like '?%' then "query" else '?' || "query" end end as page_url,
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
                partition by told.event_id order by coalesce(told."_hub_dump", 0) desc, told."time"
            ) as nth
        from (
            select
        cast("event_id" as varchar(65535)) as "event_id",
        cast("user_id" as varchar(65535)) as "user_id",
        cast("session_id" as varchar(65535)) as "session_id",
        cast("time" as timestamp) as "time",
        cast("library" as varchar(65535)) as "library",
        cast("platform" as varchar(65535)) as "platform",
        cast(null as varchar(65535)) as "device_type",
        cast("browser" as varchar(65535)) as "browser",
        cast("country" as varchar(65535)) as "country",
        cast(null as varchar(65535)) as "region",
        cast(null as varchar(65535)) as "city",
        cast("referrer" as varchar(65535)) as "referrer",
        cast("domain" as varchar(65535)) as "domain",
        cast("path" as varchar(65535)) as "path",
        cast("query" as varchar(65535)) as "query",
        cast("title" as varchar(65535)) as "title",
        cast(null as varchar(65535)) as "utm_source",
        cast(null as varchar(65535)) as "utm_medium",
        cast(null as varchar(65535)) as "utm_campaign",
        cast(null as varchar(65535)) as "utm_term",
        cast(null as varchar(65535)) as "utm_content",
        cast("_hub_dump" as bigint) as "_hub_dump",
        '{' || substring(case when "plan_seen" is null then '' else ',"plan_seen":"' || replace(replace(replace(replace(replace(cast("plan_seen" as varchar(65535)), chr(92), chr(92) || chr(92)), chr(34), chr(92) || chr(34)), chr(10), chr(92) || 'n'), chr(13), chr(92) || 'r'), chr(9), chr(92) || 't') || '"' end, 2, 65535) || '}' as properties
    from "heap"."shop_heap_connect"."pageviews"
        ) as told
        left join "heap"."shop_models"."stg_heap__user_migrations" as migrations on migrations.from_user_id = told.user_id
        where told.event_id is not null
    ) as ranked
    where nth = 1
