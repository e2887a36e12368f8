select
    events.event_day,
    count(*) as received,
    sum(case when outcomes.outcome = 'accepted' then 1 else 0 end) as accepted,
    sum(case when outcomes.outcome = 'rejected' then 1 else 0 end) as rejected,
    sum(case when outcomes.outcome = 'suppressed' then 1 else 0 end) as suppressed,
    sum(case when outcomes.outcome is null then 1 else 0 end) as pending
from {{ ref('stg_product_events') }} as events
left join {{ ref('stg_event_outcomes') }} as outcomes on outcomes.seq = events.seq
group by events.event_day
