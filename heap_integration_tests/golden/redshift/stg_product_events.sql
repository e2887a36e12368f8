select
    seq,
    cast(event_key as varchar(65535)) as event_key,
    name as event_name,
    type as event_type,
    user_id,
    anonymous_id,
    coalesce(user_id, anonymous_id) as identity,
    cast("timestamp" as timestamp) as occurred_at,
    event_day,
    cast(received_at as timestamp) as received_at,
    source,
    properties,
    context,
    suppressed
from "heap"."shop_hub"."product_events"
