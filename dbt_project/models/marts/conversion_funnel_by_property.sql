with steps as (
    {{ funnel_steps() }}
),

progress as (
    {{ funnel_progress(definition_of(var('funnels'))) }}
),

entries as (
    {%- set splits = [] -%}
    {%- for funnel in var('funnels') -%}
        {%- for name in funnel.by -%}
            {%- do splits.append((funnel, name)) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for funnel, name in splits %}
    {% if not loop.first %}union all {% endif -%}
    select
        {{ text_literal(funnel.name) }} as funnel,
        {{ text_literal(name) }} as property_name,
        coalesce({{ event_property(name) }}, '(none)') as property_value,
        events.session_id,
        events.user_id,
        events.occurred_at
    from {{ ref('int_events') }} as events
    where events.event_name = {{ text_literal(funnel.steps[0]) }}
    {%- else %}
    select
        {{ no_text() }} as funnel,
        {{ no_text() }} as property_name,
        {{ no_text() }} as property_value,
        events.session_id,
        events.user_id,
        events.occurred_at
    from {{ ref('int_events') }} as events
    where 1 = 0
    {%- endfor %}
),

reached as (
    select
        progress.funnel,
        progress.scope,
        entries.property_name,
        entries.property_value,
        progress.step_number,
        count(distinct progress.unit_id) as reached
    from progress
    inner join entries
        on entries.funnel = progress.funnel
        and entries.occurred_at = progress.entered_at
        and progress.unit_id = case when progress.scope = 'session' then entries.session_id else entries.user_id end
    group by
        progress.funnel, progress.scope, entries.property_name, entries.property_value, progress.step_number
),

counted as (
    select
        splits.funnel,
        splits.scope,
        splits.property_name,
        splits.property_value,
        steps.step_number,
        steps.step_name,
        splits.reached as entered,
        coalesce(reached.reached, 0) as reached
    from reached as splits
    inner join steps on steps.funnel = splits.funnel and steps.scope = splits.scope
    left join reached
        on reached.funnel = splits.funnel
        and reached.scope = splits.scope
        and reached.property_name = splits.property_name
        and reached.property_value = splits.property_value
        and reached.step_number = steps.step_number
    where splits.step_number = 1
),

compared as (
    select
        funnel,
        scope,
        property_name,
        property_value,
        step_number,
        step_name,
        entered,
        reached,
        lag(reached) over (
            partition by funnel, scope, property_name, property_value order by step_number
        ) as reached_before
    from counted
)

select
    funnel,
    scope,
    property_name,
    property_value,
    step_number,
    step_name,
    reached,
    {{ ratio('reached', 'coalesce(reached_before, reached)') }} as step_rate,
    {{ ratio('reached', 'entered') }} as total_rate
from compared
