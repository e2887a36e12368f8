select
    identity as user_id,
    nullif(json_extract_path_text(properties, 'email', true), '') as email,
    nullif(json_extract_path_text(properties, 'account_id', true), '') as account_id,
    nullif(json_extract_path_text(properties, 'plan', true), '') as plan_level,
    cast(nullif(json_extract_path_text(properties, 'created_at', true), '') as timestamp)
 as joined_at,
    properties
from "heap"."shop_hub"."hub_users"
