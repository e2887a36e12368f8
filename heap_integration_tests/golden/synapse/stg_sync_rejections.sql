select
    [sync] as sync_name,
    identity as user_id,
    case action when 1 then 'add' when 2 then 'remove' else 'update' end as change,
    reason,
    cast(settled_at as DATETIME2(6)) as settled_at
from "shop_hub"."sync_rejections"
