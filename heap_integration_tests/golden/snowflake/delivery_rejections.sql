select
    'heap' as destination,
    'events' as flow,
    outcome,
    reason,
    count(*) as records,
    min(settled_at) as first_at,
    max(settled_at) as last_at
from heap.shop_models.stg_event_outcomes
where outcome in ('rejected', 'suppressed')
group by outcome, reason
union all
select
    'hub' as destination,
    'lines' as flow,
    'rejected' as outcome,
    reason,
    count(*) as records,
    min(loaded_at) as first_at,
    max(loaded_at) as last_at
from heap.shop_models.stg_rejected_rows
group by reason
union all
select
    split_part(
        sync_name,
        '/',
        1
        )
 as destination,
    sync_name as flow,
    'rejected' as outcome,
    reason,
    count(*) as records,
    min(settled_at) as first_at,
    max(settled_at) as last_at
from heap.shop_models.stg_sync_rejections
group by sync_name, reason
