with seen as (
    select
        user_id,
        sum(case when day >= cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) then 1 else 0 end) as active_days,
        sum(case when day >= cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) then sessions else 0 end) as sessions,
        sum(case when day >= cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) then events else 0 end) as events,
        max(day) as last_active_day
    from "heap"."shop_models"."int_user_days"
    where day <= cast('2026-01-31' as date)
    group by user_id
),
kinds as (
    select user_id, count(distinct event_name) as unique_event_types
    from "heap"."shop_models"."int_user_day_events"
    where day between cast(
    dateadd(
        day,
        -29,
        cast('2026-01-31' as date)
        )
 as date) and cast('2026-01-31' as date)
    group by user_id
)
select
    seen.user_id,
    users.identity,
    cast('2026-01-31' as date) as as_of,
    cast(seen.active_days as bigint) as active_days,
    cast(seen.sessions as bigint) as sessions,
    cast(seen.events as bigint) as events,
    coalesce(kinds.unique_event_types, 0) as unique_event_types,
    cast(
        5 * seen.active_days + 2 * seen.sessions + 10 * coalesce(kinds.unique_event_types, 0)
        as bigint
    ) as engagement_score,
    seen.last_active_day
from seen
left join kinds on kinds.user_id = seen.user_id
left join "heap"."shop_models"."int_users" as users on users.user_id = seen.user_id
