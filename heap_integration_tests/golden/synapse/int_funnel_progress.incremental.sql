with
changed as (
    select session_id, user_id, event_day
    from "shop_models"."int_funnel_events"
    where computed_at > coalesce(
        (select max(computed_at) from "shop_models"."int_funnel_progress"), cast('1970-01-01' as DATETIME2(6))
    )
),
-- Who was there before may have been merged with somebody or deleted since.
known as (
    select distinct scope, unit_id
    from "shop_models"."int_funnel_progress"
    where reached_day in (select event_day from changed)
        or (scope = 'session' and unit_id in (select session_id from changed))
        or (scope = 'user' and unit_id in (select user_id from changed))
),
sessions as (
    select session_id as unit_id from changed
    union
    select unit_id from known where scope = 'session'
),
users as (
    select user_id as unit_id from changed
    union
    select unit_id from known where scope = 'user'
),
session_1_0 as (
    select session_id as unit_id, step_number, occurred_at, arrived
    from "shop_models"."int_funnel_events"
    where funnel = cast('signup' as nvarchar(4000))
        and definition = cast('6769ac7fbc9c689a495ab97a50110897' as nvarchar(4000))
        and session_id is not null
        and session_id in (select unit_id from sessions)
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
    from "shop_models"."int_funnel_events"
    where funnel = cast('signup' as nvarchar(4000))
        and definition = cast('6769ac7fbc9c689a495ab97a50110897' as nvarchar(4000))
        and user_id is not null
        and user_id in (select unit_id from users)
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
        cast('signup' as nvarchar(4000)) as funnel,
        cast('session' as nvarchar(4000)) as scope,
        unit_id,
        1 as step_number,
        occurred_at as entered_at,
        occurred_at as reached_at
    from session_1_0
    where step_number = 1
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('session' as nvarchar(4000)) as scope,
        unit_id,
        2 as step_number,
        entered_at as entered_at,
        occurred_at as reached_at
    from session_1_0_2
    where step_number = 2 and entered_at is not null
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('session' as nvarchar(4000)) as scope,
        unit_id,
        3 as step_number,
        entered_at as entered_at,
        occurred_at as reached_at
    from session_1_0_3
    where step_number = 3 and entered_at is not null
    union all
    select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('user' as nvarchar(4000)) as scope,
        unit_id,
        1 as step_number,
        occurred_at as entered_at,
        occurred_at as reached_at
    from user_2_1
    where step_number = 1
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('user' as nvarchar(4000)) as scope,
        unit_id,
        2 as step_number,
        entered_at as entered_at,
        occurred_at as reached_at
    from user_2_1_2
    where step_number = 2 and occurred_at <= cast(
    dateadd(
        second,
        172800,
        cast(entered_at as datetime2(6))
        )
 as DATETIME2(6)
    )
    union all select
        cast('signup' as nvarchar(4000)) as funnel,
        cast('user' as nvarchar(4000)) as scope,
        unit_id,
        3 as step_number,
        entered_at as entered_at,
        occurred_at as reached_at
    from user_2_1_3
    where step_number = 3 and occurred_at <= cast(
    dateadd(
        second,
        172800,
        cast(entered_at as datetime2(6))
        )
 as DATETIME2(6)
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
    cast('6769ac7fbc9c689a495ab97a50110897' as nvarchar(4000)) as definition,
    cast('2026-02-01 00:00:00' as DATETIME2(6)) as computed_at
from reached
-- Rows that stand in place of what a unit had, should it have nothing left.
union all
select
    cast(null as nvarchar(4000)) as funnel,
    scope,
    unit_id,
    0 as step_number,
    cast(null as DATETIME2(6)) as entered_at,
    cast(null as date) as entered_day,
    cast(null as DATETIME2(6)) as reached_at,
    cast(null as date) as reached_day,
    cast('6769ac7fbc9c689a495ab97a50110897' as nvarchar(4000)) as definition,
    cast('2026-02-01 00:00:00' as DATETIME2(6)) as computed_at
from known
