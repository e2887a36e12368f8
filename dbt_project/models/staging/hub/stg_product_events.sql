select
    seq,
    {{ as_text("event_key") }} as event_key,
    name as event_name,
    type as event_type,
    user_id,
    anonymous_id,
    coalesce(user_id, anonymous_id) as identity,
    {{ utc(named("timestamp")) }} as occurred_at,
    event_day,
    {{ utc("received_at") }} as received_at,
    source,
    properties,
    context,
    suppressed
from {{ source('hub', 'product_events') }}
