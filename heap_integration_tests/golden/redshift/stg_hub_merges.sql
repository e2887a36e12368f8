with told as (
    select
        anonymous_id as from_user_id,
        user_id as to_user_id,
        row_number() over (partition by anonymous_id order by seq) as nth
    from "heap"."shop_models"."stg_product_events"
    where event_type in ('identify', 'alias') and suppressed is null and anonymous_id <> user_id
)
select from_user_id, to_user_id
from told
where nth = 1
