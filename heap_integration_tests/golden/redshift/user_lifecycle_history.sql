with days as (
    select
        user_id,
        day,
        sessions,
        lead(day) over (partition by user_id order by day) as next_day,
        lag(day) over (partition by user_id order by day) as previous_day
    from "heap"."shop_models"."int_user_days"
    where day <= cast('2026-01-31' as date)
),
-- A stage changes only on a day on which one of these happens: a day comes into the 30 days or leaves them, 14 or 31
-- days have passed since the last one, or the first week is over. So nothing has to be told of the days between.
changes as (
    select user_id, day as from_day, 1 as active_days, sessions, day as seen_day from days
    union all
    select user_id, cast(
    dateadd(
        day,
        30,
        day
        )
 as date), -1, -sessions, cast(null as date) from days
    union all
    select user_id, cast(
    dateadd(
        day,
        14,
        day
        )
 as date), 0, 0, cast(null as date) from days
    where next_day is null or datediff(
        day,
        day,
        next_day
        ) > 14
    union all
    select user_id, cast(
    dateadd(
        day,
        31,
        day
        )
 as date), 0, 0, cast(null as date) from days
    where next_day is null or datediff(
        day,
        day,
        next_day
        ) > 31
    union all
    select user_id, cast(
    dateadd(
        day,
        8,
        day
        )
 as date), 0, 0, cast(null as date) from days
    where previous_day is null
),
by_day as (
    select
        user_id,
        from_day,
        sum(active_days) as active_days,
        sum(sessions) as sessions,
        max(seen_day) as seen_day
    from changes
    where from_day <= cast('2026-01-31' as date)
    group by user_id, from_day
),
running as (
    select
        user_id,
        from_day,
        sum(active_days) over (
            partition by user_id order by from_day rows between unbounded preceding and current row
        ) as active_days,
        sum(sessions) over (
            partition by user_id order by from_day rows between unbounded preceding and current row
        ) as sessions,
        min(from_day) over (
            partition by user_id order by from_day rows between unbounded preceding and current row
        ) as first_day,
        max(seen_day) over (
            partition by user_id order by from_day rows between unbounded preceding and current row
        ) as last_day
    from by_day
),
staged as (
    select
        user_id,
        from_day,
        case
        when datediff(
        day,
        last_day,
        from_day
        ) > 30 then 'Churned'
        when datediff(
        day,
        last_day,
        from_day
        ) >= 14 then 'At Risk'
        when active_days >= 15 then 'Power User'
        when datediff(
        day,
        first_day,
        from_day
        ) <= 7 then 'New'
        when sessions >= 3 then 'Active'
        else 'Occasional'
    end as stage
    from running
),
compared as (
    select
        user_id,
        from_day,
        stage,
        lag(stage) over (partition by user_id order by from_day) as previous_stage
    from staged
),
periods as (
    select
        user_id,
        stage,
        previous_stage,
        from_day,
        lead(from_day) over (partition by user_id order by from_day) as next_from_day
    from compared
    where previous_stage is null or previous_stage <> stage
)
select
    user_id,
    stage,
    previous_stage,
    from_day,
    case when next_from_day is null then null else cast(
    dateadd(
        day,
        -1,
        next_from_day
        )
 as date) end as to_day,
    case when next_from_day is null then 1 else 0 end as is_current
from periods
