select
    seq,
    event_day,
    case status when 1 then 'accepted' when 2 then 'rejected' when 3 then 'suppressed' end as outcome,
    reason,
    cast(settled_at as timestamp_ntz) as settled_at
from heap.shop_hub.event_outcomes
