with steps as (
    select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('session' as nvarchar(4000)) as scope,
        1 as step_number,
        cast('Signup Started' as nvarchar(4000)) as step_name
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('session' as nvarchar(4000)) as scope,
        2 as step_number,
        cast('Email Verified' as nvarchar(4000)) as step_name
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('session' as nvarchar(4000)) as scope,
        3 as step_number,
        cast('First Purchase' as nvarchar(4000)) as step_name
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('user' as nvarchar(4000)) as scope,
        1 as step_number,
        cast('Signup Started' as nvarchar(4000)) as step_name
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('user' as nvarchar(4000)) as scope,
        2 as step_number,
        cast('Email Verified' as nvarchar(4000)) as step_name
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('user' as nvarchar(4000)) as scope,
        3 as step_number,
        cast('First Purchase' as nvarchar(4000)) as step_name
),
days as (
    select event_day
    from "shop_models"."int_events"
    group by event_day
)
select
    steps.funnel,
    steps.step_number,
    events.session_id,
    events.user_id,
    events.occurred_at,
    events.event_day,
    events.arrived,
    cast('6769ac7fbc9c689a495ab97a50110897' as nvarchar(4000)) as definition,
    cast('2026-02-01 00:00:00' as DATETIME2(6)) as computed_at
from "shop_models"."int_events" as events
inner join steps on steps.step_name = events.event_name and steps.scope = 'user'
union all
select
    cast(null as nvarchar(4000)) as funnel,
    0 as step_number,
    cast(null as nvarchar(4000)) as session_id,
    cast(null as nvarchar(4000)) as user_id,
    cast(null as DATETIME2(6)) as occurred_at,
    event_day,
    cast(null as BIGINT) as arrived,
    cast('6769ac7fbc9c689a495ab97a50110897' as nvarchar(4000)) as definition,
    cast('2026-02-01 00:00:00' as DATETIME2(6)) as computed_at
from days
