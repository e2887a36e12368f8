with members as (
    select user_id, account_id from heap.shop_models.int_users where account_id is not null
),
activity as (
    select
        user_id,
        max(case when day >= cast(
    dateadd(
        day,
        -6,
        cast('2026-01-31' as date)
        )
 as date) then 1 else 0 end) as active_7_days,
        max(case when day >= cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) then 1 else 0 end) as active_30_days,
        sum(case when day >= cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) then sessions else 0 end) as sessions_30_days,
        sum(case when day < cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) then sessions else 0 end) as sessions_before
    from heap.shop_models.int_user_days
    where day between cast(
    dateadd(
        day,
        -59,
        cast('2026-01-31' as date)
        )
 as date) and cast('2026-01-31' as date)
    group by user_id
),
features as (
    select members.account_id, days.event_name
    from heap.shop_models.int_user_day_events as days
    left join members on members.user_id = days.user_id
    where days.day between cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) and cast('2026-01-31' as date) and left(days.event_name, 8) = cast('Feature:' as TEXT)
    group by members.account_id, days.event_name
),
offered as (
    select count(distinct event_name) as features from features
),
adopted as (
    select account_id, count(*) as features from features where account_id is not null group by account_id
),
counted as (
    select
        members.account_id,
        count(*) as users,
        cast(sum(coalesce(activity.active_7_days, 0)) as bigint) as active_users_7_days,
        cast(sum(coalesce(activity.active_30_days, 0)) as bigint) as active_users_30_days,
        cast(
            sum(case when lifecycle.stage in ('At Risk', 'Churned') then 1 else 0 end) as bigint
        ) as users_leaving,
        cast(sum(coalesce(activity.sessions_30_days, 0)) as bigint) as sessions_30_days,
        cast(sum(coalesce(activity.sessions_before, 0)) as bigint) as sessions_before,
        max(lifecycle.last_day) as last_active_day
    from members
    left join activity on activity.user_id = members.user_id
    left join heap.shop_models.user_lifecycle as lifecycle on lifecycle.user_id = members.user_id
    group by members.account_id
),
pointed as (
    select
        counted.account_id,
        counted.users,
        counted.active_users_7_days,
        counted.active_users_30_days,
        counted.users_leaving,
        counted.sessions_30_days,
        counted.sessions_before,
        coalesce(adopted.features, 0) as features_used,
        counted.last_active_day,
        counted.active_users_30_days * 100.0 / counted.users as active_points,
        case
            when counted.sessions_30_days = 0 then 0.0
            when counted.sessions_30_days >= 2 * counted.sessions_before then 100.0
            else counted.sessions_30_days * 50.0 / counted.sessions_before
        end as trend_points,
        case
            when offered.features > 0 then coalesce(adopted.features, 0) * 100.0 / offered.features
        end as feature_points
    from counted
    cross join offered
    left join adopted on adopted.account_id = counted.account_id
),
scored as (
    select
        account_id,
        users,
        active_users_7_days,
        active_users_30_days,
        users_leaving,
        sessions_30_days,
        sessions_before,
        features_used,
        last_active_day,
        cast(floor(case when feature_points is null then (active_points * 40 + trend_points * 30) / 70 else (active_points * 40 + trend_points * 30 + feature_points * 30) / 100 end + 0.500001) as integer) as health_score
    from pointed
)
select
    account_id,
    health_score,
    case
        when health_score >= 70 then cast('healthy' as TEXT)
        when health_score >= 40 then cast('watch' as TEXT)
        else cast('at risk' as TEXT)
    end as health,
    users,
    active_users_7_days,
    active_users_30_days,
    users_leaving,
    sessions_30_days,
    sessions_before as sessions_30_days_before,
    features_used,
    last_active_day
from scored
