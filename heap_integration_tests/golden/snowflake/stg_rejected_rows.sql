select
    origin,
    line,
    reason,
    cast(loaded_at as timestamp_ntz) as loaded_at
from heap.shop_hub.rejected_rows
