select
    'heap' as destination,
    'events' as flow,
    event_day as day,
    cast(null as {{ dbt.type_bigint() }}) as runs,
    received as records,
    accepted,
    rejected,
    pending
from {{ ref('event_delivery_by_day') }}
union all
select
    {{ destination_of("sync_name") }} as destination,
    sync_name as flow,
    finished_day as day,
    count(*) as runs,
    cast(sum(added + removed + updated + rejected) as {{ dbt.type_bigint() }}) as records,
    cast(sum(added + removed + updated) as {{ dbt.type_bigint() }}) as accepted,
    cast(sum(rejected) as {{ dbt.type_bigint() }}) as rejected,
    cast(min(pending) as {{ dbt.type_bigint() }}) as pending
from {{ ref('stg_sync_runs') }}
group by sync_name, finished_day
