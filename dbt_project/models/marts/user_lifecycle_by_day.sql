with changes as (
    select from_day as day, stage, 1 as users from {{ ref('user_lifecycle_history') }}
    union all
    select {{ days_before("to_day", -1) }} as day, stage, -1 as users
    from {{ ref('user_lifecycle_history') }}
    where to_day is not null
),

days as (
    select distinct day from {{ ref('int_user_days') }} where day <= {{ as_of() }}
    union all
    select {{ as_of() }} as day
),

stages as (
    select distinct stage from {{ ref('user_lifecycle_history') }}
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
        as {{ dbt.type_bigint() }}
    ) as users
from moved
