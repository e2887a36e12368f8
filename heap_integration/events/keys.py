"""What makes an event the same event when it arrives again."""

from __future__ import annotations

from hashlib import blake2b

from heap_integration.events.encoding import canonical
from heap_integration.events.event import Event

KEY_BYTES = 16
# Heap asks for at least 8 characters; the upper bound keeps odd ids out of the request
_SHORTEST, _LONGEST = 8, 255


def event_key(event: Event) -> bytes:
    """Return the 16 bytes that name ``event`` for ever.

    The message id decides where there is one. Else the content does: source, type, name, ids, time as
    given, properties and traits whatever the order of their keys, and the occurrence.

    Raises:
        TypeError: the content has no JSON form (see ``encoding.canonical``).
    """
    if event.message_id:
        return _digest(event.message_id.encode(errors="surrogatepass"), b"id")
    content = (
        event.source,
        event.type,
        event.name,
        event.user_id,
        event.anonymous_id,
        event.timestamp,
        event.properties,
        event.traits,
        event.occurrence,
    )
    return _digest(canonical(content), b"content")


def idempotency_key(message_id: str, key: bytes) -> str:
    """Return what Heap tells repeats by: the message id where its length serves, else the key in hex."""
    return message_id if _SHORTEST <= len(message_id) <= _LONGEST else key.hex()


def _digest(data: bytes, domain: bytes) -> bytes:
    return blake2b(data, digest_size=KEY_BYTES, person=domain).digest()
