select
    [sync] as sync_name,
    cast(finished_at as DATETIME2(6)) as finished_at,
    cast(cast(finished_at as DATETIME2(6)) as date) as finished_day,
    wanted,
    held,
    added,
    removed,
    updated,
    unchanged,
    rejected,
    pending,
    cast(source_changed_at as DATETIME2(6)) as source_changed_at
from "shop_hub"."sync_runs"
