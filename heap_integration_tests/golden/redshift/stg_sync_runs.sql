select
    "sync" as sync_name,
    cast(finished_at as timestamp) as finished_at,
    cast(cast(finished_at as timestamp) as date) as finished_day,
    wanted,
    held,
    added,
    removed,
    updated,
    unchanged,
    rejected,
    pending,
    cast(source_changed_at as timestamp) as source_changed_at
from "heap"."shop_hub"."sync_runs"
