-- depends_on: `heap`.`shop_models`.`int_merged_users`
with counted as (
    select
        session_id,
        min(user_id) as user_id,
        min(session_started_at) as started_at,
        min(session_day) as session_day,
        max(occurred_at) as ended_at,
        count(*) as events,
        count(distinct event_name) as unique_event_types,
        min(case when page_url is not null or referrer is not null or utm_source is not null then occurred_at end)
            as landed_at
    from `heap`.`shop_models`.`int_events`
    group by session_id
),
-- Where a session came from is told by its first event that has a page or a campaign.
landed as (
    select
        events.*,
        row_number() over (partition by events.session_id order by events.arrived, events.event_id) as nth
    from `heap`.`shop_models`.`int_events` as events
    inner join counted
        on counted.session_id = events.session_id
            and events.occurred_at = coalesce(counted.landed_at, counted.started_at)
    where (
        counted.landed_at is null
        or events.page_url is not null or events.referrer is not null or events.utm_source is not null
    )
),
from_events as (
    select
        counted.session_id,
        counted.user_id,
        counted.started_at,
        counted.ended_at,
        counted.session_day,
        counted.events,
        counted.unique_event_types,
        landed.page_url as landing_page,
        landed.referrer,
        landed.utm_source,
        landed.utm_medium,
        landed.utm_campaign,
        landed.utm_term,
        landed.utm_content,
        landed.gclid,
        landed.platform,
        landed.device_type,
        landed.browser,
        landed.country,
        landed.region,
        landed.city
    from counted
    left join landed on landed.session_id = counted.session_id and landed.nth = 1
)
, of_heap as (
    select
        session_id,
        user_id,
        started_at,
        cast(started_at as date) as session_day,
        case when landing_page is null then null
            else landing_page || coalesce(landing_page_query, '') end as landing_page,
        referrer,
        utm_source,
        utm_medium,
        utm_campaign,
        utm_term,
        utm_content,
        gclid,
        platform,
        device_type,
        browser,
        country,
        region,
        city
    from `heap`.`shop_models`.`stg_heap__sessions`
    where user_id is not null and started_at is not null
),
told as (
    select * from of_heap
),
counts_again as (
    select
        session_id,
        max(occurred_at) as ended_at,
        count(*) as events,
        count(distinct event_name) as unique_event_types
    from `heap`.`shop_models`.`int_events`
    where session_id in (select session_id from told)
    group by session_id
)
select
    told.session_id,
    told.user_id,
    told.started_at,
    case when counts_again.ended_at > told.started_at then counts_again.ended_at else told.started_at end as ended_at,
    told.session_day,
    coalesce(counts_again.events, 0) as events,
    coalesce(counts_again.unique_event_types, 0) as unique_event_types,
    told.landing_page,
    told.referrer,
    told.utm_source,
    told.utm_medium,
    told.utm_campaign,
    told.utm_term,
    told.utm_content,
    told.gclid,
    told.platform,
    told.device_type,
    told.browser,
    told.country,
    told.region,
    told.city,
    1 as is_of_heap,
    cast('2026-02-01 00:00:00' as timestamp) as computed_at
from told
left join counts_again on counts_again.session_id = told.session_id
union all
select
    from_events.*,
    0 as is_of_heap,
    cast('2026-02-01 00:00:00' as timestamp) as computed_at
from from_events
where from_events.session_id not in (select session_id from of_heap)
