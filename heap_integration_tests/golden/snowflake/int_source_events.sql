with events as (
    select * from heap.shop_models.stg_heap__pageviews
    union all
    select * from heap.shop_models.stg_heap__events
)
select
    events.event_id || '/' || events.event_table_name as row_key,
    events.event_id,
    events.user_id,
    sessions.session_id,
    sessions.started_at as session_started_at,
    events.event_name,
    events.occurred_at,
    cast(events.occurred_at as date) as event_day,
    events.arrived,
    events.page_url,
    events.page_title,
    events.referrer,
    events.utm_source,
    events.utm_medium,
    events.utm_campaign,
    events.utm_term,
    events.utm_content,
    case when events.page_url like '%gclid=%'
        then nullif(
    split_part(
    split_part(
    split_part(
        '&' || replace(events.page_url, '?', '&'),
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
, '') end as gclid,
    events.platform,
    events.device_type,
    events.browser,
    events.country,
    events.region,
    events.city,
    events.properties
from events
left join heap.shop_models.stg_heap__sessions as sessions on sessions.session_id = events.session_id
where events.user_id is not null and events.occurred_at is not null
