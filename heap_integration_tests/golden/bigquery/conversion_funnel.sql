with steps as (
    select
        cast('signup' as string) as funnel,
        cast('session' as string) as scope,
        1 as step_number,
        cast('Signup Started' as string) as step_name
    union all select
        cast('signup' as string) as funnel,
        cast('session' as string) as scope,
        2 as step_number,
        cast('Email Verified' as string) as step_name
    union all select
        cast('signup' as string) as funnel,
        cast('session' as string) as scope,
        3 as step_number,
        cast('First Purchase' as string) as step_name
    union all select
        cast('signup' as string) as funnel,
        cast('user' as string) as scope,
        1 as step_number,
        cast('Signup Started' as string) as step_name
    union all select
        cast('signup' as string) as funnel,
        cast('user' as string) as scope,
        2 as step_number,
        cast('Email Verified' as string) as step_name
    union all select
        cast('signup' as string) as funnel,
        cast('user' as string) as scope,
        3 as step_number,
        cast('First Purchase' as string) as step_name
),
progress as (
    select funnel, scope, unit_id, step_number, entered_at, entered_day, reached_at
    from `heap`.`shop_models`.`int_funnel_progress`
    where step_number > 0
        and reached_day <= cast('2026-01-31' as date)
        and definition = cast('6769ac7fbc9c689a495ab97a50110897' as string)
),
units as (
    select funnel, scope, unit_id, step_number, min(
    datetime_diff(
        cast(reached_at as datetime),
        cast(entered_at as datetime),
        second
    )
  ) as seconds
    from progress
    group by funnel, scope, unit_id, step_number
),
reached as (
    select
        funnel,
        scope,
        step_number,
        count(*) as reached,
        sum(cast(seconds as FLOAT64)) / count(*) / 3600 as average_hours
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
    case when coalesce(reached_before, reached) > 0 then cast(reached as FLOAT64) / coalesce(reached_before, reached) end as step_rate,
    case when entered > 0 then cast(reached as FLOAT64) / entered end as total_rate,
    average_hours
from compared
