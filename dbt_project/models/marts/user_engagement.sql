with seen as (
    select
        user_id,
        sum(case when day >= {{ window_start() }} then 1 else 0 end) as active_days,
        sum(case when day >= {{ window_start() }} then sessions else 0 end) as sessions,
        sum(case when day >= {{ window_start() }} then events else 0 end) as events,
        max(day) as last_active_day
    from {{ ref('int_user_days') }}
    where day <= {{ as_of() }}
    group by user_id
),

kinds as (
    select user_id, count(distinct event_name) as unique_event_types
    from {{ ref('int_user_day_events') }}
    where day between {{ window_start() }} and {{ as_of() }}
    group by user_id
)

select
    seen.user_id,
    users.identity,
    {{ as_of() }} as as_of,
    cast(seen.active_days as {{ dbt.type_bigint() }}) as active_days,
    cast(seen.sessions as {{ dbt.type_bigint() }}) as sessions,
    cast(seen.events as {{ dbt.type_bigint() }}) as events,
    coalesce(kinds.unique_event_types, 0) as unique_event_types,
    cast(
        5 * seen.active_days + 2 * seen.sessions + 10 * coalesce(kinds.unique_event_types, 0)
        as {{ dbt.type_bigint() }}
    ) as engagement_score,
    seen.last_active_day
from seen
left join kinds on kinds.user_id = seen.user_id
left join {{ ref('int_users') }} as users on users.user_id = seen.user_id
