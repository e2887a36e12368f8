{%- set known = var("heap_tables").get("users", []) -%}
{%- set plan = var("plan_property") -%}
{%- set account = var("account_property") -%}
{%- set own = ["user_id", "identity", "handle", "email", "joindate", "last_modified"] -%}
{%- set wanted = own + ([plan] if plan not in own else []) + ([account] if account not in own and account != plan else []) -%}
with told as (
    {{ heap_table(
        "users", wanted, {"joindate": dbt.type_timestamp(), "last_modified": dbt.type_timestamp()},
        known | reject("in", own) | reject("in", ["_hub_dump"]) | list
    ) }}
),

resolved as (
    select
        told.*,
        {{ resolved_user("told.user_id", "migrations.to_user_id") }} as resolved_user_id
    from told
    left join {{ ref('stg_heap__user_migrations') }} as migrations on migrations.from_user_id = told.user_id
),

-- Heap says to take the greatest of what merged users have; the properties are those of the row that changed last.
grouped as (
    select
        resolved_user_id as user_id,
        max({{ named("identity") }}) as identity,
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
    newest.{{ named(account) }} as account_id,
    newest.{{ named(plan) }} as plan_level,
    grouped.joined_at,
    grouped.last_modified,
    newest.properties
from grouped
inner join newest on newest.resolved_user_id = grouped.user_id and newest.nth = 1
