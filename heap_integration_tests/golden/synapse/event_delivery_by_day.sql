with received as (
    select event_day, count(*) as events
    from "shop_models"."stg_product_events"
    group by event_day
),
settled as (
    select
        event_day,
        sum(case when outcome = 'accepted' then 1 else 0 end) as accepted,
        sum(case when outcome = 'rejected' then 1 else 0 end) as rejected,
        sum(case when outcome = 'suppressed' then 1 else 0 end) as suppressed,
        count(*) as settled
    from "shop_models"."stg_event_outcomes"
    group by event_day
)
select
    received.event_day,
    received.events as received,
    cast(coalesce(settled.accepted, 0) as BIGINT) as accepted,
    cast(coalesce(settled.rejected, 0) as BIGINT) as rejected,
    cast(coalesce(settled.suppressed, 0) as BIGINT) as suppressed,
    received.events - coalesce(settled.settled, 0) as pending
from received
left join settled on settled.event_day = received.event_day
