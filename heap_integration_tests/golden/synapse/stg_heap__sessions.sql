with told as (
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
        cast([landing_page] as nvarchar(4000)) as [landing_page],
        cast([landing_page_query] as nvarchar(4000)) as [landing_page_query],
        cast([utm_source] as nvarchar(4000)) as [utm_source],
        cast([utm_medium] as nvarchar(4000)) as [utm_medium],
        cast(null as nvarchar(4000)) as [utm_campaign],
        cast(null as nvarchar(4000)) as [utm_term],
        cast(null as nvarchar(4000)) as [utm_content],
        cast([_hub_dump] as BIGINT) as [_hub_dump]
    from "shop_heap_connect"."sessions"
),
-- Heap sends rows of sessions twice.
ranked as (
    select
        told.*,
        coalesce(migrations.to_user_id, told.user_id) as resolved_user_id,
        row_number() over (partition by told.session_id order by told.[time], told.event_id) as nth
    from told
    left join "shop_models"."stg_heap__user_migrations" as migrations on migrations.from_user_id = told.user_id
    where told.session_id is not null
)
select
    session_id,
    event_id,
    resolved_user_id as user_id,
    [time] as started_at,
    coalesce([_hub_dump], 0) as arrived,
    [library] as library,
    platform,
    device_type,
    browser,
    country,
    region,
    city,
    referrer,
    landing_page,
    landing_page_query,
    utm_source,
    utm_medium,
    utm_campaign,
    utm_term,
    utm_content,
    case when concat('?', replace(landing_page_query, '?', '')) like '%gclid=%'
        then nullif(left(left(case when charindex('&gclid=', concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&'))) > 0 then substring(concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&')), charindex('&gclid=', concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&'))) + 7, 8000) else '' end, charindex('&', concat(case when charindex('&gclid=', concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&'))) > 0 then substring(concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&')), charindex('&gclid=', concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&'))) + 7, 8000) else '' end, '&')) - 1), charindex('#', concat(left(case when charindex('&gclid=', concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&'))) > 0 then substring(concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&')), charindex('&gclid=', concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&'))) + 7, 8000) else '' end, charindex('&', concat(case when charindex('&gclid=', concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&'))) > 0 then substring(concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&')), charindex('&gclid=', concat('&', replace(concat('?', replace(landing_page_query, '?', '')), '?', '&'))) + 7, 8000) else '' end, '&')) - 1), '#')) - 1), '') end as gclid
from ranked
where nth = 1
