with steps as (
    {{ funnel_steps() }}
),

progress as (
    {{ funnel_progress(definition_of(var('funnels'))) }}
),

units as (
    select funnel, scope, unit_id, step_number, min({{ dbt.datediff('entered_at', 'reached_at', 'second') }}) as seconds
    from progress
    group by funnel, scope, unit_id, step_number
),

reached as (
    select
        funnel,
        scope,
        step_number,
        count(*) as reached,
        sum(cast(seconds as {{ type_double() }})) / count(*) / 3600 as average_hours
    from units
    group by funnel, scope, step_number
),

counted as (
    select
        steps.funnel,
        steps.scope,
        steps.step_number,
        steps.step_name,
        coalesce(reached.reached, 0) as reached,
        reached.average_hours
    from steps
    left join reached
        on reached.funnel = steps.funnel
        and reached.scope = steps.scope
        and reached.step_number = steps.step_number
),

compared as (
    select
        funnel,
        scope,
        step_number,
        step_name,
        reached,
        average_hours,
        max(case when step_number = 1 then reached end) over (partition by funnel, scope) as entered,
        lag(reached) over (partition by funnel, scope order by step_number) as reached_before
    from counted
)

select
    funnel,
    scope,
    step_number,
    step_name,
    reached,
    coalesce(reached_before, reached) - reached as dropped,
    {{ ratio('reached', 'coalesce(reached_before, reached)') }} as step_rate,
    {{ ratio('reached', 'entered') }} as total_rate,
    average_hours
from compared
