select
    origin,
    line,
    reason,
    {{ utc("loaded_at") }} as loaded_at
from {{ source('hub', 'rejected_rows') }}
