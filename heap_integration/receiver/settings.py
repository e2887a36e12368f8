"""What a receiver is told: whose calls it takes, and what proves that they are theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Dialect = Literal["segment", "customerio"]
SwitchState = Literal["on", "keep", "drop"]
Switch = Callable[[str], SwitchState]

CALL_BYTES = 32 * 1024
BATCH_BYTES = 500 * 1024


@dataclass(frozen=True, slots=True)
class Client:
    """A client that speaks Segment's HTTP API: its events bear ``name``, its calls ``write_key``.

    ``dialect`` decides how it is answered. Sizes are in bytes, after decompression: of one call, also
    of each in a batch, and of a whole batch.
    """

    name: str
    write_key: str = field(repr=False)
    dialect: Dialect = "segment"
    largest_call_bytes: int = CALL_BYTES
    largest_batch_bytes: int = BATCH_BYTES


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """The sources of one environment; what is not set does not exist at this receiver.

    Without ``userflow_profiles`` only the events of Userflow's notifications count. ``heap_webhooks``
    is a user and a password. With ``segment_sync_id_token`` only that Heap customer's segments are taken.

    Raises:
        ValueError: two clients have one name or one write key.
    """

    userflow_secret: str | None = field(default=None, repr=False)
    userflow_profiles: bool = True
    userpilot_secret: str | None = field(default=None, repr=False)
    heap_webhooks: tuple[str, str] | None = field(default=None, repr=False)
    clients: tuple[Client, ...] = ()
    segment_sync_secret: str | None = field(default=None, repr=False)
    segment_sync_id_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len({client.name for client in self.clients}) < len(self.clients):
            raise ValueError("two clients have the same name")
        if len({client.write_key for client in self.clients}) < len(self.clients):
            raise ValueError("two clients have the same write key")
