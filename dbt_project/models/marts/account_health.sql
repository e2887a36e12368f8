{#- Weights in percent. -#}
{%- set active_weight, trend_weight, feature_weight = 40, 30, 30 -%}
with members as (
    select user_id, account_id from {{ ref('int_users') }} where account_id is not null
),

activity as (
    select
        user_id,
        max(case when day >= {{ days_before(as_of(), 6) }} then 1 else 0 end) as active_7_days,
        max(case when day >= {{ window_start() }} then 1 else 0 end) as active_30_days,
        sum(case when day >= {{ window_start() }} then sessions else 0 end) as sessions_30_days,
        sum(case when day < {{ window_start() }} then sessions else 0 end) as sessions_before
    from {{ ref('int_user_days') }}
    where day between {{ days_before(as_of(), 59) }} and {{ as_of() }}
    group by user_id
),

features as (
    select members.account_id, days.event_name
    from {{ ref('int_user_day_events') }} as days
    left join members on members.user_id = days.user_id
    where days.day between {{ window_start() }} and {{ as_of() }} and {{ is_feature('days.event_name') }}
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
        cast(sum(coalesce(activity.active_7_days, 0)) as {{ dbt.type_bigint() }}) as active_users_7_days,
        cast(sum(coalesce(activity.active_30_days, 0)) as {{ dbt.type_bigint() }}) as active_users_30_days,
        cast(
            sum(case when lifecycle.stage in ('At Risk', 'Churned') then 1 else 0 end) as {{ dbt.type_bigint() }}
        ) as users_leaving,
        cast(sum(coalesce(activity.sessions_30_days, 0)) as {{ dbt.type_bigint() }}) as sessions_30_days,
        cast(sum(coalesce(activity.sessions_before, 0)) as {{ dbt.type_bigint() }}) as sessions_before,
        max(lifecycle.last_day) as last_active_day
    from members
    left join activity on activity.user_id = members.user_id
    left join {{ ref('user_lifecycle') }} as lifecycle on lifecycle.user_id = members.user_id
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
        {{ rounded(
            "case when feature_points is null then (active_points * " ~ active_weight ~ " + trend_points * "
            ~ trend_weight ~ ") / " ~ (active_weight + trend_weight) ~ " else (active_points * " ~ active_weight
            ~ " + trend_points * " ~ trend_weight ~ " + feature_points * " ~ feature_weight ~ ") / 100 end"
        ) }} as health_score
    from pointed
)

select
    account_id,
    health_score,
    case
        when health_score >= 70 then {{ text_literal('healthy') }}
        when health_score >= 40 then {{ text_literal('watch') }}
        else {{ text_literal('at risk') }}
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
