with steps as (
    {{ funnel_steps() }}
),

progress as (
    {{ funnel_progress(definition_of(var('funnels'))) }}
),

reached as (
    select funnel, scope, entered_day, step_number, count(distinct unit_id) as reached
    from progress
    group by funnel, scope, entered_day, step_number
),

counted as (
    select
        entries.funnel,
        entries.scope,
        entries.entered_day,
        steps.step_number,
        steps.step_name,
        entries.reached as entered,
        coalesce(reached.reached, 0) as reached
    from reached as entries
    inner join steps on steps.funnel = entries.funnel and steps.scope = entries.scope
    left join reached
        on reached.funnel = entries.funnel
        and reached.scope = entries.scope
        and reached.entered_day = entries.entered_day
        and reached.step_number = steps.step_number
    where entries.step_number = 1
),

compared as (
    select
        funnel,
        scope,
        entered_day,
        step_number,
        step_name,
        entered,
        reached,
        lag(reached) over (partition by funnel, scope, entered_day order by step_number) as reached_before
    from counted
)

select
    funnel,
    scope,
    entered_day,
    step_number,
    step_name,
    reached,
    {{ ratio('reached', 'coalesce(reached_before, reached)') }} as step_rate,
    {{ ratio('reached', 'entered') }} as total_rate
from compared
