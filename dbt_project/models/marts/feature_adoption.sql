with plans as (
    select coalesce(plan_level, '(none)') as plan_level, count(*) as users
    from {{ ref('int_users') }}
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
    from {{ ref('int_user_day_events') }} as days
    left join {{ ref('int_users') }} as users on users.user_id = days.user_id
    where {{ is_feature('days.event_name') }}
        and days.day <= {{ as_of() }}
    group by coalesce(users.plan_level, '(none)'), days.event_name, days.user_id
),

counted as (
    select
        plan_level,
        event_type,
        count(*) as users_adopted,
        cast(
            sum(case when last_day >= {{ window_start() }} then 1 else 0 end) as {{ dbt.type_bigint() }}
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
    {{ ratio('coalesce(counted.users_adopted, 0)', 'plans.users') }} as adoption_rate,
    coalesce(counted.users_adopted_30_days, 0) as users_adopted_30_days,
    {{ ratio('coalesce(counted.users_adopted_30_days, 0)', 'plans.users') }} as adoption_rate_30_days,
    cast(coalesce(counted.uses, 0) as {{ dbt.type_bigint() }}) as uses,
    {{ ratio('counted.uses', 'counted.users_adopted') }} as uses_per_user,
    counted.first_used_day,
    counted.last_used_day
from plans
cross join features
left join counted on counted.plan_level = plans.plan_level and counted.event_type = features.event_type
