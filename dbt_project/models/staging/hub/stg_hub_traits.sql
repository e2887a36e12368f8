select
    identity as user_id,
    {{ json_text("properties", "email") }} as email,
    {{ json_text("properties", var("account_property")) }} as account_id,
    {{ json_text("properties", var("plan_property")) }} as plan_level,
    {{ dbt.safe_cast(json_text("properties", "created_at"), dbt.type_timestamp()) }} as joined_at,
    properties
from {{ source('hub', 'hub_users') }}
