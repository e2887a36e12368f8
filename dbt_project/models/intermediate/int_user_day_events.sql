{{ config(
    materialized="incremental",
    incremental_strategy=day_strategy(),
    unique_key="day",
    partition_by=day_partition("day"),
) }}
{%- set some_days = is_incremental() or days_asked() %}
{%- set days = days_found(newer_days(ref('int_events'), "event_day", "day")) if some_days else [] %}
select
    user_id,
    event_day as day,
    event_name,
    count(*) as events,
    min(occurred_at) as first_at,
    max(occurred_at) as last_at,
    {{ computed_at() }} as computed_at
from {{ ref('int_events') }}
{% if some_days -%}
where {{ among_days("event_day", days) }}
{%- endif %}
group by user_id, event_day, event_name
