{{ config(
    materialized="incremental",
    incremental_strategy=day_strategy(),
    unique_key="event_day",
    partition_by=day_partition("event_day"),
) }}
{%- set newer %}
select theirs.event_day
from (
    select event_day, count(*) as events
    from {{ ref('stg_event_outcomes') }}
    where outcome = 'accepted'
    group by event_day
) as theirs
left join (
    select event_day, sum(events) as events from {{ this }} group by event_day
) as ours on ours.event_day = theirs.event_day
where ours.event_day is null or ours.events <> theirs.events
{%- endset %}
{%- set some_days = is_incremental() or days_asked() %}
{%- set days = days_found(newer) if some_days else [] %}
with waited as (
    select
        events.event_day,
        events.source,
        {{ dbt.datediff("events.received_at", "outcomes.settled_at", "second") }} as seconds,
        count(*) as events
    from {{ ref('stg_product_events') }} as events
    inner join {{ ref('stg_event_outcomes') }} as outcomes on outcomes.seq = events.seq
    where outcomes.outcome = 'accepted'
    {% if some_days -%}
    and {{ among_days("events.event_day", days) }}
    and {{ among_days("outcomes.event_day", days) }}
    {%- endif %}
    group by
        events.event_day,
        events.source,
        {{ dbt.datediff("events.received_at", "outcomes.settled_at", "second") }}
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
    cast(sum(events) as {{ dbt.type_bigint() }}) as events,
    min(case when through >= 0.5 * of_day then seconds end) as median_seconds,
    min(case when through >= 0.95 * of_day then seconds end) as p95_seconds,
    max(seconds) as longest_seconds,
    {{ computed_at() }} as computed_at
from shared
group by event_day, source
