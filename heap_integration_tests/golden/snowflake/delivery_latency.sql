with waited as (
    select
        events.event_day,
        events.source,
        datediff(
        second,
        events.received_at,
        outcomes.settled_at
        ) as seconds,
        count(*) as events
    from heap.shop_models.stg_product_events as events
    inner join heap.shop_models.stg_event_outcomes as outcomes on outcomes.seq = events.seq
    where outcomes.outcome = 'accepted'
    group by
        events.event_day,
        events.source,
        datediff(
        second,
        events.received_at,
        outcomes.settled_at
        )
),
-- A percentile is the shortest wait within which that share of the events was through: every engine can say that.
shared as (
    select
        event_day,
        source,
        seconds,
        events,
        sum(events) over (
            partition by event_day, source order by seconds rows between unbounded preceding and current row
        ) as through,
        sum(events) over (partition by event_day, source) as of_day
    from waited
)
select
    event_day,
    source,
    cast(sum(events) as bigint) as events,
    min(case when through >= 0.5 * of_day then seconds end) as median_seconds,
    min(case when through >= 0.95 * of_day then seconds end) as p95_seconds,
    max(seconds) as longest_seconds,
    cast('2026-02-01 00:00:00' as timestamp) as computed_at
from shared
group by event_day, source
