with told as (
    select
        cast([user_id] as nvarchar(4000)) as [user_id],
        cast([identity] as nvarchar(4000)) as [identity],
        cast(null as nvarchar(4000)) as [handle],
        cast([email] as nvarchar(4000)) as [email],
        cast([joindate] as DATETIME2(6)) as [joindate],
        cast([last_modified] as DATETIME2(6)) as [last_modified],
        cast([plan] as nvarchar(4000)) as [plan],
        cast([account_id] as nvarchar(4000)) as [account_id],
        concat('{', substring(concat(case when [plan] is null then '' else concat(',"plan":"', replace(replace(replace(replace(replace(cast([plan] as nvarchar(4000)), char(92), concat(char(92), char(92))), char(34), concat(char(92), char(34))), char(10), concat(char(92), 'n')), char(13), concat(char(92), 'r')), char(9), concat(char(92), 't')), '"') end, case when [account_id] is null then '' else concat(',"account_id":"', replace(replace(replace(replace(replace(cast([account_id] as nvarchar(4000)), char(92), concat(char(92), char(92))), char(34), concat(char(92), char(34))), char(10), concat(char(92), 'n')), char(13), concat(char(92), 'r')), char(9), concat(char(92), 't')), '"') end), 2, 65535), '}') as properties
    from "shop_heap_connect"."users"
),
resolved as (
    select
        told.*,
        coalesce(migrations.to_user_id, told.user_id) as resolved_user_id
    from told
    left join "shop_models"."stg_heap__user_migrations" as migrations on migrations.from_user_id = told.user_id
),
-- Heap says to take the greatest of what merged users have; the properties are those of the row that changed last.
grouped as (
    select
        resolved_user_id as user_id,
        max([identity]) as identity,
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
    newest.[account_id] as account_id,
    newest.[plan] as plan_level,
    grouped.joined_at,
    grouped.last_modified,
    newest.properties
from grouped
inner join newest on newest.resolved_user_id = grouped.user_id and newest.nth = 1
