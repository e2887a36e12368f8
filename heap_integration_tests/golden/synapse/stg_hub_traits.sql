select
    identity as user_id,
    json_value(properties, '$."email"') as email,
    json_value(properties, '$."account_id"') as account_id,
    json_value(properties, '$."plan"') as plan_level,
    try_cast(json_value(properties, '$."created_at"') as DATETIME2(6))
 as joined_at,
    properties
from "shop_hub"."hub_users"
