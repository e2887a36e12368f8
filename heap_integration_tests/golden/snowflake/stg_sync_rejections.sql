select
    sync as sync_name,
    identity as user_id,
    case action when 1 then 'add' when 2 then 'remove' else 'update' end as change,
    reason,
    cast(settled_at as timestamp_ntz) as settled_at
from heap.shop_hub.sync_rejections
