with newest as (
    select
        seq,
        status,
        reason,
        settled_at,
        row_number() over (partition by seq order by settled_at desc) as nth
    from {{ source('hub', 'event_outcomes') }}
)

select
    seq,
    case status when 1 then 'accepted' when 2 then 'rejected' when 3 then 'suppressed' end as outcome,
    reason,
    settled_at
from newest
where nth = 1
