select
    {{ named("sync") }} as sync_name,
    {{ utc("finished_at") }} as finished_at,
    cast({{ utc("finished_at") }} as date) as finished_day,
    wanted,
    held,
    added,
    removed,
    updated,
    unchanged,
    rejected,
    pending,
    {{ utc("source_changed_at") }} as source_changed_at
from {{ source('hub', 'sync_runs') }}
