with told as (
    select
        cast(null as string) as `event_id`,
        cast(null as string) as `user_id`,
        cast(null as string) as `session_id`,
        cast(null as timestamp) as `time`,
        cast(null as string) as `event_table_name`
    from (select 1 as nothing) as nothing
    where 1 = 0
),
-- One raw event has a row for each definition that it meets.
ranked as (
    select
        told.*,
        coalesce(migrations.to_user_id, told.user_id) as resolved_user_id,
        row_number() over (
            partition by told.event_id, told.event_table_name order by told.`time`
        ) as nth
    from told
    left join `heap`.`shop_models`.`stg_heap__user_migrations` as migrations on migrations.from_user_id = told.user_id
    where told.event_id is not null
)
select
    event_id,
    resolved_user_id as user_id,
    session_id,
    `time` as occurred_at,
    event_table_name
from ranked
where nth = 1
