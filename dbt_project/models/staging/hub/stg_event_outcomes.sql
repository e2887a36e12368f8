select
    seq,
    event_day,
    case status when 1 then 'accepted' when 2 then 'rejected' when 3 then 'suppressed' end as outcome,
    reason,
    {{ utc("settled_at") }} as settled_at
from {{ source('hub', 'event_outcomes') }}
