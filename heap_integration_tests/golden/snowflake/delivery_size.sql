select
    'heap' as destination,
    'events' as flow,
    event_day as day,
    cast(null as bigint) as runs,
    received as records,
    accepted,
    rejected,
    pending
from heap.shop_models.event_delivery_by_day
union all
select
    split_part(
        sync_name,
        '/',
        1
        )
 as destination,
    sync_name as flow,
    finished_day as day,
    count(*) as runs,
    cast(sum(added + removed + updated + rejected) as bigint) as records,
    cast(sum(added + removed + updated) as bigint) as accepted,
    cast(sum(rejected) as bigint) as rejected,
    cast(min(pending) as bigint) as pending
from heap.shop_models.stg_sync_runs
group by sync_name, finished_day
