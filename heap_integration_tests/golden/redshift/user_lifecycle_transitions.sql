select
    from_day as day,
    previous_stage as from_stage,
    stage as to_stage,
    count(*) as users
from "heap"."shop_models"."user_lifecycle_history"
where previous_stage is not null
group by from_day, previous_stage, stage
