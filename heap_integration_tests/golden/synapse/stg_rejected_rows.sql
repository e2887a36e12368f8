select
    origin,
    line,
    reason,
    cast(loaded_at as DATETIME2(6)) as loaded_at
from "shop_hub"."rejected_rows"
