with seen as (
    select
        user_id,
        min(day) as first_day,
        max(day) as last_day,
        sum(case when day >= {{ window_start() }} then 1 else 0 end) as active_days,
        sum(case when day >= {{ window_start() }} then sessions else 0 end) as sessions
    from {{ ref('int_user_days') }}
    where day <= {{ as_of() }}
    group by user_id
)

select
    seen.user_id,
    users.identity,
    {{ as_of() }} as as_of,
    {{ lifecycle_stage(as_of(), "seen.first_day", "seen.last_day", "seen.active_days", "seen.sessions") }} as stage,
    seen.first_day,
    seen.last_day,
    {{ days_between("seen.last_day", as_of()) }} as days_since_last_seen,
    cast(seen.active_days as {{ dbt.type_bigint() }}) as active_days,
    cast(seen.sessions as {{ dbt.type_bigint() }}) as sessions
from seen
left join {{ ref('int_users') }} as users on users.user_id = seen.user_id
