select
    origin,
    line,
    reason,
    cast(loaded_at as timestamp) as loaded_at
from "heap"."shop_hub"."rejected_rows"
