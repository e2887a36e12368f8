select
    seq,
    cast(event_key as nvarchar(4000)) as event_key,
    name as event_name,
    type as event_type,
    user_id,
    anonymous_id,
    coalesce(user_id, anonymous_id) as identity,
    cast([timestamp] as DATETIME2(6)) as occurred_at,
    event_day,
    cast(received_at as DATETIME2(6)) as received_at,
    source,
    properties,
    context,
    suppressed
from "shop_hub"."product_events"
