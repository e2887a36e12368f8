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
days as (
    select event_day
    from "heap"."shop_models"."int_events"
    group by event_day
    having max(computed_at) > coalesce(
        (select max(computed_at) from "heap"."shop_models"."int_funnel_events" where definition = cast('6769ac7fbc9c689a495ab97a50110897' as varchar(65535))),
        cast('1970-01-01' as timestamp)
    )
)
select
    steps.funnel,
    steps.step_number,
    events.session_id,
    events.user_id,
    events.occurred_at,
    events.event_day,
    events.arrived,
    cast('6769ac7fbc9c689a495ab97a50110897' as varchar(65535)) as definition,
    cast('2026-02-01 00:00:00' as timestamp) as computed_at
from "heap"."shop_models"."int_events" as events
inner join steps on steps.step_name = events.event_name and steps.scope = 'user'
where events.event_day in (select event_day from days)
union all
select
    cast(null as varchar(65535)) as funnel,
    0 as step_number,
    cast(null as varchar(65535)) as session_id,
    cast(null as varchar(65535)) as user_id,
    cast(null as timestamp) as occurred_at,
    event_day,
    cast(null as bigint) as arrived,
    cast('6769ac7fbc9c689a495ab97a50110897' as varchar(65535)) as definition,
    cast('2026-02-01 00:00:00' as timestamp) as computed_at
from days
