with told as (
    {{ heap_table("user_migrations", ["from_user_id", "to_user_id", "time"], {"time": dbt.type_timestamp()}) }}
)

select from_user_id, to_user_id, migrated_at
from (
    select
        from_user_id,
        to_user_id,
        {{ named("time") }} as migrated_at,
        row_number() over (partition by from_user_id order by {{ named("time") }} desc, to_user_id) as nth
    from told
) as ranked
where nth = 1 and from_user_id <> to_user_id
