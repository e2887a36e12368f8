select
    user_id,
    day,
    cast(sum(sessions) as bigint) as sessions,
    cast(sum(events) as bigint) as events,
    cast(sum(unique_event_types) as bigint) as unique_event_types,
    min(first_at) as first_at,
    max(last_at) as last_at,
    cast('2026-02-01 00:00:00' as timestamp) as computed_at
from (
    select
        user_id,
        day,
        0 as sessions,
        sum(events) as events,
        count(*) as unique_event_types,
        min(first_at) as first_at,
        max(last_at) as last_at
    from `heap`.`shop_models`.`int_user_day_events`
    group by user_id, day
    union all
    select
        user_id,
        session_day as day,
        count(*) as sessions,
        0 as events,
        0 as unique_event_types,
        min(started_at) as first_at,
        max(started_at) as last_at
    from `heap`.`shop_models`.`int_sessions`
    group by user_id, session_day
) as told
group by user_id, day
