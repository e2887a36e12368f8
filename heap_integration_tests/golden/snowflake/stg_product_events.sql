select
    seq,
    cast(event_key as TEXT) as event_key,
    name as event_name,
    type as event_type,
    user_id,
    anonymous_id,
    coalesce(user_id, anonymous_id) as identity,
    cast(timestamp as timestamp_ntz) as occurred_at,
    event_day,
    cast(received_at as timestamp_ntz) as received_at,
    source,
    properties,
    context,
    suppressed
from heap.shop_hub.product_events
