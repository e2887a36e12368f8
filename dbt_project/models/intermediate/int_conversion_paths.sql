{{ config(
    materialized="incremental",
    incremental_strategy=day_strategy(),
    unique_key="session_day",
    partition_by=day_partition("session_day"),
) }}
{#- The last steps are told: a path is a text of limited length for every engine, and what comes right before a
    conversion says most about it. -#}
{%- set longest = 12 %}
{%- set definition = definition_of(conversion_events()) %}
with days as (
    {{ fresh_days('session_day', definition) }}
),

conversions as (
    select session_id, session_day, user_id, conversion_event, occurred_at, arrived
    from (
        select
            session_id,
            session_day,
            user_id,
            event_name as conversion_event,
            occurred_at,
            arrived,
            row_number() over (partition by session_id, event_name order by occurred_at, arrived) as nth
        from {{ ref('int_events') }}
        where session_id is not null
            and {{ is_conversion('event_name') }}
            {%- if is_incremental() %}
            and session_day in (select session_day from days)
            {%- endif %}
    ) as occurrences
    where nth = 1
),

before as (
    select
        conversions.session_id,
        conversions.session_day,
        conversions.user_id,
        conversions.conversion_event,
        conversions.occurred_at as converted_at,
        events.event_name,
        events.occurred_at,
        events.arrived,
        lag(events.event_name) over (
            partition by conversions.session_id, conversions.conversion_event
            order by events.occurred_at, events.arrived
        ) as event_before
    from conversions
    inner join {{ ref('int_events') }} as events
        on events.session_id = conversions.session_id
        and (
            events.occurred_at < conversions.occurred_at
            or (events.occurred_at = conversions.occurred_at and events.arrived <= conversions.arrived)
        )
    {%- if is_incremental() %}
    where events.session_day in (select session_day from days)
    {%- endif %}
),

steps as (
    select
        session_id,
        session_day,
        user_id,
        conversion_event,
        converted_at,
        event_name,
        occurred_at,
        row_number() over (
            partition by session_id, conversion_event order by occurred_at desc, arrived desc
        ) as from_end
    from before
    where event_before is null or event_before <> event_name
),

placed as (
    select
        session_id,
        conversion_event,
        min(session_day) as session_day,
        min(user_id) as user_id,
        min(converted_at) as converted_at,
        min(occurred_at) as began_at,
        count(*) as steps
        {%- for place in range(longest, 0, -1) %},
        max(case when from_end = {{ place }} then event_name end) as step_{{ place }}
        {%- endfor %}
    from steps
    group by session_id, conversion_event
)

select
    session_id,
    conversion_event,
    user_id,
    session_day,
    converted_at,
    cast(converted_at as date) as converted_day,
    steps,
    {{ dbt.datediff('began_at', 'converted_at', 'second') }} as seconds,
    {% set parts = ["case when steps > " ~ longest ~ " then '... > ' else '' end"] -%}
    {%- for place in range(longest, 1, -1) -%}
        {%- do parts.append(
            "case when step_" ~ place ~ " is null then '' else " ~ dbt.concat(["step_" ~ place, "' > '"]) ~ " end"
        ) -%}
    {%- endfor -%}
    {%- do parts.append("step_1") -%}
    {{ dbt.concat(parts) }} as path,
    {{ definition }} as definition,
    {{ computed_at() }} as computed_at
from placed
union all
select
    {{ no_text() }} as session_id,
    {{ no_text() }} as conversion_event,
    {{ no_text() }} as user_id,
    session_day,
    cast(null as {{ dbt.type_timestamp() }}) as converted_at,
    cast(null as date) as converted_day,
    0 as steps,
    0 as seconds,
    {{ no_text() }} as path,
    {{ definition }} as definition,
    {{ computed_at() }} as computed_at
from days
