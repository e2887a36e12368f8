with periods as (
    select
        user_id,
        day,
        cast(floor(datediff(
        day,
        cast('1970-01-05' as date),
        day
        ) / 7.0) as integer) as week_number,
        datediff(
        month,
        cast('1970-01-01' as date),
        day
        ) as month_number
    from heap.shop_models.int_user_days
    where day <= cast('2026-01-31' as date)
),
numbers as (
    select
        user_id,
        cast('week' as TEXT) as period,
        week_number as period_number,
        min(week_number) over (partition by user_id) as cohort_number
    from (select distinct user_id, week_number from periods) as weeks
    union all
    select
        user_id,
        cast('month' as TEXT) as period,
        month_number as period_number,
        min(month_number) over (partition by user_id) as cohort_number
    from (select distinct user_id, month_number from periods) as months
),
retained as (
    select period, cohort_number, period_number, count(*) as retained_users
    from numbers
    group by period, cohort_number, period_number
),
present as (
    select
        cast('week' as TEXT) as period,
        cast(floor(datediff(
        day,
        cast('1970-01-05' as date),
        cast('2026-01-31' as date)
        ) / 7.0) as integer) as period_number
    union all
    select cast('month' as TEXT) as period, datediff(
        month,
        cast('1970-01-01' as date),
        cast('2026-01-31' as date)
        ) as period_number
),
offsets as (
    select 0 as periods_since
    union all select 1 as periods_since
    union all select 2 as periods_since
    union all select 3 as periods_since
    union all select 4 as periods_since
    union all select 5 as periods_since
    union all select 6 as periods_since
    union all select 7 as periods_since
    union all select 8 as periods_since
    union all select 9 as periods_since
    union all select 10 as periods_since
    union all select 11 as periods_since
    union all select 12 as periods_since
    union all select 13 as periods_since
    union all select 14 as periods_since
    union all select 15 as periods_since
    union all select 16 as periods_since
    union all select 17 as periods_since
    union all select 18 as periods_since
    union all select 19 as periods_since
    union all select 20 as periods_since
    union all select 21 as periods_since
    union all select 22 as periods_since
    union all select 23 as periods_since
    union all select 24 as periods_since
    union all select 25 as periods_since
    union all select 26 as periods_since
    union all select 27 as periods_since
    union all select 28 as periods_since
    union all select 29 as periods_since
    union all select 30 as periods_since
    union all select 31 as periods_since
    union all select 32 as periods_since
    union all select 33 as periods_since
    union all select 34 as periods_since
    union all select 35 as periods_since
    union all select 36 as periods_since
    union all select 37 as periods_since
    union all select 38 as periods_since
    union all select 39 as periods_since
    union all select 40 as periods_since
    union all select 41 as periods_since
    union all select 42 as periods_since
    union all select 43 as periods_since
    union all select 44 as periods_since
    union all select 45 as periods_since
    union all select 46 as periods_since
    union all select 47 as periods_since
    union all select 48 as periods_since
    union all select 49 as periods_since
    union all select 50 as periods_since
    union all select 51 as periods_since
    union all select 52 as periods_since
),
counted as (
    select
        cohorts.period,
        cohorts.cohort_number,
        offsets.periods_since,
        present.period_number as present_number,
        cohorts.retained_users as cohort_users,
        coalesce(retained.retained_users, 0) as retained_users
    from retained as cohorts
    inner join present on present.period = cohorts.period
    inner join offsets
        on cohorts.cohort_number + offsets.periods_since <= present.period_number
        and (cohorts.period = 'week' or offsets.periods_since <= 24)
    left join retained
        on retained.period = cohorts.period
        and retained.cohort_number = cohorts.cohort_number
        and retained.period_number = cohorts.cohort_number + offsets.periods_since
    where cohorts.period_number = cohorts.cohort_number
)
select
    period,
    case
        when period = 'week' then cast(
    dateadd(
        day,
        (7 * cohort_number),
        cast('1970-01-05' as date)
        )
 as date)
        else cast(
    dateadd(
        month,
        cohort_number,
        cast('1970-01-01' as date)
        )
 as date)
    end as cohort,
    periods_since,
    cohort_users,
    retained_users,
    case when cohort_users > 0 then cast(retained_users as float) / cohort_users end as retention_rate,
    cast(case when cohort_number + periods_since < present_number then 1 else 0 end as boolean) as complete
from counted
