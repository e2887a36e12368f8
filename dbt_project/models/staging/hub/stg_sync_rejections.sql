select
    {{ named("sync") }} as sync_name,
    identity as user_id,
    case action when 1 then 'add' when 2 then 'remove' else 'update' end as change,
    reason,
    {{ utc("settled_at") }} as settled_at
from {{ source('hub', 'sync_rejections') }}
