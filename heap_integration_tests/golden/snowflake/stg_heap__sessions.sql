with told as (
    select
        cast(event_id as TEXT) as event_id,
        cast(user_id as TEXT) as user_id,
        cast(session_id as TEXT) as session_id,
        cast(time as timestamp_ntz) as time,
        cast(library as TEXT) as library,
        cast(platform as TEXT) as platform,
        cast(null as TEXT) as device_type,
        cast(browser as TEXT) as browser,
        cast(country as TEXT) as country,
        cast(null as TEXT) as region,
        cast(null as TEXT) as city,
        cast(referrer as TEXT) as referrer,
        cast(landing_page as TEXT) as landing_page,
        cast(landing_page_query as TEXT) as landing_page_query,
        cast(utm_source as TEXT) as utm_source,
        cast(utm_medium as TEXT) as utm_medium,
        cast(null as TEXT) as utm_campaign,
        cast(null as TEXT) as utm_term,
        cast(null as TEXT) as utm_content,
        cast(_hub_dump as bigint) as _hub_dump
    from heap.shop_heap_connect.sessions
),
-- Heap sends rows of sessions twice.
ranked as (
    select
        told.*,
        coalesce(migrations.to_user_id, told.user_id) as resolved_user_id,
        row_number() over (partition by told.session_id order by told.time, told.event_id) as nth
    from told
    left join heap.shop_models.stg_heap__user_migrations as migrations on migrations.from_user_id = told.user_id
    where told.session_id is not null
)
select
    session_id,
    event_id,
    resolved_user_id as user_id,
    time as started_at,
    coalesce(_hub_dump, 0) as arrived,
    library as library,
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
    case when '?' || replace(landing_page_query, '?', '') like '%gclid=%'
        then nullif(
    split_part(
    split_part(
    split_part(
        '&' || replace('?' || replace(landing_page_query, '?', ''), '?', '&'),
        '&gclid=',
        2
        )
,
        '&',
        1
        )
,
        '#',
        1
        )
, '') end as gclid
from ranked
where nth = 1
