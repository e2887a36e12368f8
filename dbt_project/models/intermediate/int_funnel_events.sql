{{ config(
    materialized="incremental",
    incremental_strategy=day_strategy(),
    unique_key="event_day",
    partition_by=day_partition("event_day"),
) }}
{%- set definition = definition_of(var('funnels')) %}
with steps as (
    {{ funnel_steps() }}
),

days as (
    {{ fresh_days('event_day', definition) }}
)

select
    steps.funnel,
    steps.step_number,
    events.session_id,
    events.user_id,
    events.occurred_at,
    events.event_day,
    events.arrived,
    {{ definition }} as definition,
    {{ computed_at() }} as computed_at
from {{ ref('int_events') }} as events
inner join steps on steps.step_name = events.event_name and steps.scope = 'user'
{%- if is_incremental() %}
where events.event_day in (select event_day from days)
{%- endif %}
union all
select
    {{ no_text() }} as funnel,
    0 as step_number,
    {{ no_text() }} as session_id,
    {{ no_text() }} as user_id,
    cast(null as {{ dbt.type_timestamp() }}) as occurred_at,
    event_day,
    cast(null as {{ dbt.type_bigint() }}) as arrived,
    {{ definition }} as definition,
    {{ computed_at() }} as computed_at
from days
