with
session_1_0 as (
    select session_id as unit_id, step_number, occurred_at, arrived
    from "heap"."shop_models"."int_funnel_events"
    where funnel = cast('signup' as varchar(65535))
        and definition = cast('6769ac7fbc9c689a495ab97a50110897' as varchar(65535))
        and session_id is not null
),
session_1_0_2 as (
    select
        unit_id,
        step_number,
        occurred_at,
        arrived,
        max(
            case when step_number = 1 then occurred_at end
        ) over (partition by unit_id order by occurred_at, arrived rows between unbounded preceding and current row) as entered_at
    from session_1_0
),
session_1_0_3 as (
    select
        unit_id,
        step_number,
        occurred_at,
        arrived,
        max(
            case when step_number = 2 then entered_at end
        ) over (partition by unit_id order by occurred_at, arrived rows between unbounded preceding and current row) as entered_at
    from session_1_0_2
    where step_number >= 2
),
user_2_1 as (
    select user_id as unit_id, step_number, occurred_at, arrived
    from "heap"."shop_models"."int_funnel_events"
    where funnel = cast('signup' as varchar(65535))
        and definition = cast('6769ac7fbc9c689a495ab97a50110897' as varchar(65535))
        and user_id is not null
),
user_2_1_2 as (
    select
        unit_id,
        step_number,
        occurred_at,
        arrived,
        max(
            case when step_number = 1 then occurred_at end
        ) over (partition by unit_id order by occurred_at, arrived rows between unbounded preceding and current row) as entered_at
    from user_2_1
),
user_2_1_3 as (
    select
        unit_id,
        step_number,
        occurred_at,
        arrived,
        max(
            case when step_number = 2 then entered_at end
        ) over (partition by unit_id order by occurred_at, arrived rows between unbounded preceding and current row) as entered_at
    from user_2_1_2
    where step_number >= 2
),
reached as (
    select
        cast('signup' as varchar(65535)) as funnel,
        cast('session' as varchar(65535)) as scope,
        unit_id,
        1 as step_number,
        occurred_at as entered_at,
        occurred_at as reached_at
    from session_1_0
    where step_number = 1
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('session' as varchar(65535)) as scope,
        unit_id,
        2 as step_number,
        entered_at as entered_at,
        occurred_at as reached_at
    from session_1_0_2
    where step_number = 2 and entered_at is not null
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('session' as varchar(65535)) as scope,
        unit_id,
        3 as step_number,
        entered_at as entered_at,
        occurred_at as reached_at
    from session_1_0_3
    where step_number = 3 and entered_at is not null
    union all
    select
        cast('signup' as varchar(65535)) as funnel,
        cast('user' as varchar(65535)) as scope,
        unit_id,
        1 as step_number,
        occurred_at as entered_at,
        occurred_at as reached_at
    from user_2_1
    where step_number = 1
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('user' as varchar(65535)) as scope,
        unit_id,
        2 as step_number,
        entered_at as entered_at,
        occurred_at as reached_at
    from user_2_1_2
    where step_number = 2 and occurred_at <= cast(
    dateadd(
        second,
        172800,
        entered_at
        )
 as timestamp
    )
    union all select
        cast('signup' as varchar(65535)) as funnel,
        cast('user' as varchar(65535)) as scope,
        unit_id,
        3 as step_number,
        entered_at as entered_at,
        occurred_at as reached_at
    from user_2_1_3
    where step_number = 3 and occurred_at <= cast(
    dateadd(
        second,
        172800,
        entered_at
        )
 as timestamp
    )
)
select
    funnel,
    scope,
    unit_id,
    step_number,
    entered_at,
    cast(entered_at as date) as entered_day,
    reached_at,
    cast(reached_at as date) as reached_day,
    cast('6769ac7fbc9c689a495ab97a50110897' as varchar(65535)) as definition,
    cast('2026-02-01 00:00:00' as timestamp) as computed_at
from reached
