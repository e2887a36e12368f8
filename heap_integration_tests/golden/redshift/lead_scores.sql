with totals as (
    select
        user_id,
        cast(sum(sessions) as bigint) as total_sessions,
        max(day) as last_active_day
    from "heap"."shop_models"."int_user_days"
    where day <= cast('2026-01-31' as date)
    group by user_id
),
features as (
    select user_id, event_name
    from "heap"."shop_models"."int_user_day_events"
    where day between cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) and cast('2026-01-31' as date) and left(event_name, 8) = cast('Feature:' as varchar(65535))
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
        datediff(
        day,
        totals.last_active_day,
        cast('2026-01-31' as date)
        ) as days_inactive
    from "heap"."shop_models"."int_users" as users
    cross join offered
    left join "heap"."shop_models"."user_engagement" as engagement on engagement.user_id = users.user_id
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
            when engagement_score >= 200 then 100.0 else engagement_score * 100.0 / 200
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
        cast(floor(case when feature_points is null then (engagement_points * 50 + recency_points * 20) / 70 else (engagement_points * 50 + feature_points * 30 + recency_points * 20) / 100 end + 0.500001) as integer) as pql_score,
        cast(floor(coalesce(feature_points, 0) + 0.500001) as integer) as feature_adoption_score,
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
        when pql_score >= 70 then cast('hot' as varchar(65535))
        when pql_score >= 40 then cast('warm' as varchar(65535))
        else cast('cold' as varchar(65535))
    end as grade,
    feature_adoption_score,
    engagement_score,
    features_used,
    total_sessions,
    last_active_day
from scored
