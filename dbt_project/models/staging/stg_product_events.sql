select
    seq,
    event_key,
    name as event_name,
    type as event_type,
    coalesce(user_id, anonymous_id) as identity,
    timestamp as occurred_at,
    event_day,
    received_at,
    source,
    properties
from {{ source('hub', 'product_events') }}
