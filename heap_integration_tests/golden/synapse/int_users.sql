with seen as (
    select user_id, min(first_at) as first_seen_at, max(last_at) as last_seen_at
    from "shop_models"."int_user_days"
    group by user_id
),
told as (
    select user_id, identity, email, account_id, plan_level, joined_at, properties
    from "shop_models"."stg_heap__users"
    where user_id is not null
),
everybody as (
    select user_id from seen
    union all
    select user_id from told
)
select
    users.user_id,
    -- The hub's events name their users by it.
    told.identity as identity,
    told.email,
    told.account_id,
    told.plan_level,
    coalesce(told.joined_at, seen.first_seen_at) as joined_at,
    seen.first_seen_at,
    seen.last_seen_at,
    coalesce(told.properties, '{}') as properties
from (select distinct user_id from everybody) as users
left join seen on seen.user_id = users.user_id
left join told on told.user_id = users.user_id
