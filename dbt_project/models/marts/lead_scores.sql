{#- Weights in percent. The engagement score counts fully from this many points on. -#}
{%- set engagement_weight, feature_weight, recency_weight = 50, 30, 20 -%}
{%- set most_engaged = 200 -%}
with totals as (
    select
        user_id,
        cast(sum(sessions) as {{ dbt.type_bigint() }}) as total_sessions,
        max(day) as last_active_day
    from {{ ref('int_user_days') }}
    where day <= {{ as_of() }}
    group by user_id
),

features as (
    select user_id, event_name
    from {{ ref('int_user_day_events') }}
    where day between {{ window_start() }} and {{ as_of() }} and {{ is_feature('event_name') }}
    group by user_id, event_name
),

offered as (
    select count(distinct event_name) as features from features
),

adopted as (
    select user_id, count(*) as features from features group by user_id
),

measured as (
    select
        users.user_id,
        users.identity,
        users.email,
        users.account_id,
        users.plan_level,
        coalesce(engagement.engagement_score, 0) as engagement_score,
        coalesce(adopted.features, 0) as features_used,
        offered.features as features_offered,
        coalesce(totals.total_sessions, 0) as total_sessions,
        totals.last_active_day,
        {{ days_between('totals.last_active_day', as_of()) }} as days_inactive
    from {{ ref('int_users') }} as users
    cross join offered
    left join {{ ref('user_engagement') }} as engagement on engagement.user_id = users.user_id
    left join totals on totals.user_id = users.user_id
    left join adopted on adopted.user_id = users.user_id
),

pointed as (
    select
        user_id,
        identity,
        email,
        account_id,
        plan_level,
        engagement_score,
        features_used,
        features_offered,
        total_sessions,
        last_active_day,
        case
            when engagement_score >= {{ most_engaged }} then 100.0 else engagement_score * 100.0 / {{ most_engaged }}
        end as engagement_points,
        case when features_offered > 0 then features_used * 100.0 / features_offered end as feature_points,
        case
            when days_inactive <= 7 then 100.0
            when days_inactive < 30 then (30 - days_inactive) * 100.0 / 23
            else 0.0
        end as recency_points
    from measured
),

scored as (
    select
        user_id,
        identity,
        email,
        account_id,
        plan_level,
        {{ rounded(
            "case when feature_points is null then (engagement_points * " ~ engagement_weight
            ~ " + recency_points * " ~ recency_weight ~ ") / " ~ (engagement_weight + recency_weight)
            ~ " else (engagement_points * " ~ engagement_weight ~ " + feature_points * " ~ feature_weight
            ~ " + recency_points * " ~ recency_weight ~ ") / 100 end"
        ) }} as pql_score,
        {{ rounded("coalesce(feature_points, 0)") }} as feature_adoption_score,
        engagement_score,
        features_used,
        total_sessions,
        last_active_day
    from pointed
)

select
    user_id,
    identity,
    email,
    account_id,
    plan_level,
    pql_score,
    case
        when pql_score >= 70 then {{ text_literal('hot') }}
        when pql_score >= 40 then {{ text_literal('warm') }}
        else {{ text_literal('cold') }}
    end as grade,
    feature_adoption_score,
    engagement_score,
    features_used,
    total_sessions,
    last_active_day
from scored
