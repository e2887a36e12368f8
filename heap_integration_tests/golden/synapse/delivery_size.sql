select
    'heap' as destination,
    'events' as flow,
    event_day as day,
    cast(null as BIGINT) as runs,
    received as records,
    accepted,
    rejected,
    pending
from "shop_models"."event_delivery_by_day"
union all
select
    left(sync_name, charindex('/', concat(sync_name, '/')) - 1) as destination,
    sync_name as flow,
    finished_day as day,
    count(*) as runs,
    cast(sum(added + removed + updated + rejected) as BIGINT) as records,
    cast(sum(added + removed + updated) as BIGINT) as accepted,
    cast(sum(rejected) as BIGINT) as rejected,
    cast(min(pending) as BIGINT) as pending
from "shop_models"."stg_sync_runs"
group by sync_name, finished_day
