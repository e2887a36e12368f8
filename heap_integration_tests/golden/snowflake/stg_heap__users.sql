with told as (
    select
        cast(user_id as TEXT) as user_id,
        cast(identity as TEXT) as identity,
        cast(null as TEXT) as handle,
        cast(email as TEXT) as email,
        cast(joindate as timestamp_ntz) as joindate,
        cast(last_modified as timestamp_ntz) as last_modified,
        cast(plan as TEXT) as plan,
        cast(account_id as TEXT) as account_id,
        to_json(object_construct('plan', cast(plan as varchar), 'account_id', cast(account_id as varchar))) as properties
    from heap.shop_heap_connect.users
),
resolved as (
    select
        told.*,
        coalesce(migrations.to_user_id, told.user_id) as resolved_user_id
    from told
    left join heap.shop_models.stg_heap__user_migrations as migrations on migrations.from_user_id = told.user_id
),
-- Heap says to take the greatest of what merged users have; the properties are those of the row that changed last.
grouped as (
    select
        resolved_user_id as user_id,
        max(identity) as identity,
        max(handle) as handle,
        max(email) as email,
        min(joindate) as joined_at,
        max(last_modified) as last_modified
    from resolved
    group by resolved_user_id
),
newest as (
    select
        *,
        row_number() over (
            partition by resolved_user_id order by case when last_modified is null then 1 else 0 end, last_modified desc, user_id
        ) as nth
    from resolved
)
select
    grouped.user_id,
    grouped.identity,
    grouped.handle,
    grouped.email,
    newest.account_id as account_id,
    newest.plan as plan_level,
    grouped.joined_at,
    grouped.last_modified,
    newest.properties
from grouped
inner join newest on newest.resolved_user_id = grouped.user_id and newest.nth = 1
