with seen as (
    select
        user_id,
        min(day) as first_day,
        max(day) as last_day,
        sum(case when day >= cast(
        datetime_add(
            cast( cast('2026-01-31' as date) as datetime),
        interval -29 day
        )
 as date) then 1 else 0 end) as active_days,
        sum(case when day >= cast(
        datetime_add(
            cast( cast('2026-01-31' as date) as datetime),
        interval -29 day
        )
 as date) then sessions else 0 end) as sessions
    from `heap`.`shop_models`.`int_user_days`
    where day <= cast('2026-01-31' as date)
    group by user_id
)
select
    seen.user_id,
    users.identity,
    cast('2026-01-31' as date) as as_of,
    case
        when
    datetime_diff(
        cast(cast('2026-01-31' as date) as datetime),
        cast(seen.last_day as datetime),
        day
    )
   > 30 then 'Churned'
        when
    datetime_diff(
        cast(cast('2026-01-31' as date) as datetime),
        cast(seen.last_day as datetime),
        day
    )
   >= 14 then 'At Risk'
        when seen.active_days >= 15 then 'Power User'
        when
    datetime_diff(
        cast(cast('2026-01-31' as date) as datetime),
        cast(seen.first_day as datetime),
        day
    )
   <= 7 then 'New'
        when seen.sessions >= 3 then 'Active'
        else 'Occasional'
    end as stage,
    seen.first_day,
    seen.last_day,
    datetime_diff(
        cast(cast('2026-01-31' as date) as datetime),
        cast(seen.last_day as datetime),
        day
    )
   as days_since_last_seen,
    cast(seen.active_days as bigint) as active_days,
    cast(seen.sessions as bigint) as sessions
from seen
left join `heap`.`shop_models`.`int_users` as users on users.user_id = seen.user_id
