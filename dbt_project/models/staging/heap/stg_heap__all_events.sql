with told as (
    {{ heap_table(
        "all_events", ["event_id", "user_id", "session_id", "time", "event_table_name"], {"time": dbt.type_timestamp()}
    ) }}
),

-- One raw event has a row for each definition that it meets.
ranked as (
    select
        told.*,
        {{ resolved_user("told.user_id", "migrations.to_user_id") }} as resolved_user_id,
        row_number() over (
            partition by told.event_id, told.event_table_name order by told.{{ named("time") }}
        ) as nth
    from told
    left join {{ ref('stg_heap__user_migrations') }} as migrations on migrations.from_user_id = told.user_id
    where told.event_id is not null
)

select
    event_id,
    resolved_user_id as user_id,
    session_id,
    {{ named("time") }} as occurred_at,
    event_table_name
from ranked
where nth = 1
