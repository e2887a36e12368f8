with told as (
    select
        cast([from_user_id] as nvarchar(4000)) as [from_user_id],
        cast([to_user_id] as nvarchar(4000)) as [to_user_id],
        cast([time] as DATETIME2(6)) as [time]
    from "shop_heap_connect"."user_migrations"
)
select from_user_id, to_user_id, migrated_at
from (
    select
        from_user_id,
        to_user_id,
        [time] as migrated_at,
        row_number() over (partition by from_user_id order by [time] desc, to_user_id) as nth
    from told
) as ranked
where nth = 1 and from_user_id <> to_user_id
