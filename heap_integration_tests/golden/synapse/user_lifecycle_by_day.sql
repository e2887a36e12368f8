with changes as (
    select from_day as day, stage, 1 as users from "shop_models"."user_lifecycle_history"
    union all
    select cast(
    dateadd(
        day,
        1,
        cast(to_day as datetime2(6))
        )
 as date) as day, stage, -1 as users
    from "shop_models"."user_lifecycle_history"
    where to_day is not null
),
days as (
    select distinct day from "shop_models"."int_user_days" where day <= cast('2026-01-31' as date)
    union all
    select cast('2026-01-31' as date) as day
),
stages as (
    select distinct stage from "shop_models"."user_lifecycle_history"
),
-- Every stage has a row on every day, also where nobody came or went.
every_day as (
    select days.day, stages.stage, 0 as users from days cross join stages
    union all
    select day, stage, users from changes
),
moved as (
    select day, stage, sum(users) as users from every_day group by day, stage
)
select
    day,
    stage,
    cast(
        sum(users) over (partition by stage order by day rows between unbounded preceding and current row)
        as BIGINT
    ) as users
from moved
