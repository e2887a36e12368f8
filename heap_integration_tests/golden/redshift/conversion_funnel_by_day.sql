with steps as (
    select
        cast('signup' as varchar(65535)) as funnel,
        cast('session' as varchar(65535)) as scope,
        1 as step_number,
        cast('Signup Started' as varchar(65535)) as step_name
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('session' as varchar(65535)) as scope,
        2 as step_number,
        cast('Email Verified' as varchar(65535)) as step_name
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('session' as varchar(65535)) as scope,
        3 as step_number,
        cast('First Purchase' as varchar(65535)) as step_name
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('user' as varchar(65535)) as scope,
        1 as step_number,
        cast('Signup Started' as varchar(65535)) as step_name
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('user' as varchar(65535)) as scope,
        2 as step_number,
        cast('Email Verified' as varchar(65535)) as step_name
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('user' as varchar(65535)) as scope,
        3 as step_number,
        cast('First Purchase' as varchar(65535)) as step_name
),
progress as (
    select funnel, scope, unit_id, step_number, entered_at, entered_day, reached_at
    from "heap"."shop_models"."int_funnel_progress"
    where step_number > 0
        and reached_day <= cast('2026-01-31' as date)
        and definition = cast('6769ac7fbc9c689a495ab97a50110897' as varchar(65535))
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
    case when coalesce(reached_before, reached) > 0 then cast(reached as float) / coalesce(reached_before, reached) end as step_rate,
    case when entered > 0 then cast(reached as float) / entered end as total_rate
from compared
