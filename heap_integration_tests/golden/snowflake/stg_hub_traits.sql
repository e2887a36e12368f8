select
    identity as user_id,
    cast(get_path(try_parse_json(properties), '["email"]') as varchar) as email,
    cast(get_path(try_parse_json(properties), '["account_id"]') as varchar) as account_id,
    cast(get_path(try_parse_json(properties), '["plan"]') as varchar) as plan_level,
        try_cast(cast(get_path(try_parse_json(properties), '["created_at"]') as varchar) as timestamp)
     as joined_at,
    properties
from heap.shop_hub.hub_users
