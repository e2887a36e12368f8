{{ config(
    materialized="incremental",
    incremental_strategy=day_strategy(),
    unique_key="day",
    partition_by=day_partition("day"),
) }}
{%- set newer %}
{{ newer_days(ref('int_user_day_events'), "day", "day") }}
union all
{{ newer_days(ref('int_sessions'), "session_day", "day") }}
{%- endset %}
{%- set some_days = is_incremental() or days_asked() %}
{%- set days = days_found(newer) if some_days else [] %}
select
    user_id,
    day,
    cast(sum(sessions) as {{ dbt.type_bigint() }}) as sessions,
    cast(sum(events) as {{ dbt.type_bigint() }}) as events,
    cast(sum(unique_event_types) as {{ dbt.type_bigint() }}) as unique_event_types,
    min(first_at) as first_at,
    max(last_at) as last_at,
    {{ computed_at() }} as computed_at
from (
    select
        user_id,
        day,
        0 as sessions,
        sum(events) as events,
        count(*) as unique_event_types,
        min(first_at) as first_at,
        max(last_at) as last_at
    from {{ ref('int_user_day_events') }}
    {% if some_days -%}
    where {{ among_days("day", days) }}
    {%- endif %}
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
    from {{ ref('int_sessions') }}
    {% if some_days -%}
    where {{ among_days("session_day", days) }}
    {%- endif %}
    group by user_id, session_day
) as told
group by user_id, day
