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
entries as (
    select
        cast('signup' as varchar(65535)) as funnel,
        cast('platform' as varchar(65535)) as property_name,
        coalesce(events.platform, '(none)') as property_value,
        events.session_id,
        events.user_id,
        events.occurred_at
    from "heap"."shop_models"."int_events" as events
    where events.event_name = cast('Signup Started' as varchar(65535))
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('form' as varchar(65535)) as property_name,
        coalesce(nullif(json_extract_path_text(events.properties, 'form', true), ''), '(none)') as property_value,
        events.session_id,
        events.user_id,
        events.occurred_at
    from "heap"."shop_models"."int_events" as events
    where events.event_name = cast('Signup Started' as varchar(65535))
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
    case when coalesce(reached_before, reached) > 0 then cast(reached as float) / coalesce(reached_before, reached) end as step_rate,
    case when entered > 0 then cast(reached as float) / entered end as total_rate
from compared
