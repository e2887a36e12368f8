"""The forms in which events reach the warehouse."""

from __future__ import annotations

import pyarrow as pa

# Arrow's own allocator keeps what the pieces of a file needed once: 50 MB for as long as the process lives.
pa.set_memory_pool(pa.system_memory_pool())

# Times are UTC without a zone; properties, traits and context are the text of a JSON object. ``suppressed``
# is why an event never goes out, decided when it was received; most have none.
EVENT_SCHEMA = pa.schema(
    [
        pa.field("event_key", pa.binary(16), nullable=False),
        pa.field("message_id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("anonymous_id", pa.string()),
        pa.field("timestamp", pa.timestamp("us"), nullable=False),
        pa.field("received_at", pa.timestamp("us"), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("properties", pa.string(), nullable=False),
        pa.field("traits", pa.string(), nullable=False),
        pa.field("context", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("suppressed", pa.string()),
    ]
)

REJECT_SCHEMA = pa.schema(
    [
        pa.field("origin", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ]
)
