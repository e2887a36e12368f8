with plans as (
    select coalesce(plan_level, '(none)') as plan_level, count(*) as users
    from "shop_models"."int_users"
    group by coalesce(plan_level, '(none)')
),
uses as (
    select
        coalesce(users.plan_level, '(none)') as plan_level,
        days.event_name as event_type,
        days.user_id,
        min(days.day) as first_day,
        max(days.day) as last_day,
        sum(days.events) as uses
    from "shop_models"."int_user_day_events" as days
    left join "shop_models"."int_users" as users on users.user_id = days.user_id
    where left(days.event_name, 8) = cast('Feature:' as nvarchar(4000))
        and days.day <= cast('2026-01-31' as date)
    group by coalesce(users.plan_level, '(none)'), days.event_name, days.user_id
),
counted as (
    select
        plan_level,
        event_type,
        count(*) as users_adopted,
        cast(
            sum(case when last_day >= cast(
    dateadd(
        day,
        -29,
        cast(cast('2026-01-31' as date) as datetime2(6))
        )
 as date) then 1 else 0 end) as BIGINT
        ) as users_adopted_30_days,
        sum(uses) as uses,
        min(first_day) as first_used_day,
        max(last_day) as last_used_day
    from uses
    group by plan_level, event_type
),
features as (
    select distinct event_type from counted
)
select
    plans.plan_level,
    features.event_type,
    plans.users,
    coalesce(counted.users_adopted, 0) as users_adopted,
    case when plans.users > 0 then cast(coalesce(counted.users_adopted, 0) as FLOAT) / plans.users end as adoption_rate,
    coalesce(counted.users_adopted_30_days, 0) as users_adopted_30_days,
    case when plans.users > 0 then cast(coalesce(counted.users_adopted_30_days, 0) as FLOAT) / plans.users end as adoption_rate_30_days,
    cast(coalesce(counted.uses, 0) as BIGINT) as uses,
    case when counted.users_adopted > 0 then cast(counted.uses as FLOAT) / counted.users_adopted end as uses_per_user,
    counted.first_used_day,
    counted.last_used_day
from plans
cross join features
left join counted on counted.plan_level = plans.plan_level and counted.event_type = features.event_type
