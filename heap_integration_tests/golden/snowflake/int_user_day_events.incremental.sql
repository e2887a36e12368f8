select
    user_id,
    event_day as day,
    event_name,
    count(*) as events,
    min(occurred_at) as first_at,
    max(occurred_at) as last_at,
    cast('2026-02-01 00:00:00' as timestamp) as computed_at
from heap.shop_models.int_events
where event_day in (cast('2026-01-30' as date), cast('2026-01-31' as date))
group by user_id, event_day, event_name
