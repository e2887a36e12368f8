"""The calls of Customer.io's Track and App APIs that this project needs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import orjson

from heap_integration.delivery.records import BatchRejected, Record, RetryLater, Window
from heap_integration.destinations.http import attempts, shown

if TYPE_CHECKING:
    import httpx

    from heap_integration.delivery.pace import Grant
    from heap_integration.destinations.http import Api
    from heap_integration.store import Store

APP_CALLS = Window(10, 1.0)
LOOKED_UP_AT_ONCE = 100
MEMBERS_A_PAGE = 30_000
BATCH_BYTES, ITEM_BYTES = 500_000, 32_000

IdType = Literal["id", "email"]


@dataclass(frozen=True)
class Person:
    """Somebody Customer.io knows; not everybody has an ``id``."""

    id: str | None


class AppTurns:
    """Leave to call the App API, which takes ten calls a second: all processes with the same store share them."""

    def __init__(self, store: Store, name: str) -> None:
        # Listing the assets of an environment needs no store.
        from heap_integration.delivery.pace import Pace

        self._store = store
        self._pace = Pace(store, name, (APP_CALLS,))
        self._lock = Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a turn; it counts from the end of the call on."""
        while not (grant := self._ask()).records:
            time.sleep(max(grant.wait, 0.01))
        try:
            yield
        finally:
            with self._lock, self._store.begin() as connection:
                self._pace.done(grant, connection)

    def _ask(self) -> Grant:
        with self._lock:
            return self._pace.ask([Record(b"", None)])


class CustomerioClient:
    """One workspace: ``track`` writes, ``app`` reads and makes segments. Everything raises what ``Api.call`` does.

    See https://docs.customer.io/integrations/api/track/ and .../app/.
    """

    def __init__(self, track: Api, app: Api, turns: AppTurns) -> None:
        self.track = track
        self.app = app
        self._turns = turns

    def workspace(self) -> Mapping[str, Any]:
        """Return ``environment_id``, the workspace's number, and ``region`` of the Track API's credentials."""
        found = self.track.object(self.track.call("GET", "/api/v1/accounts/region"))
        if not found.get("environment_id"):
            raise RetryLater("Customer.io's answer is no workspace")
        return found

    def segments(self) -> list[Mapping[str, Any]]:
        """Return all segments, manual and data-driven ones."""
        return self.app.object(self._app("GET", "/v1/segments")).get("segments") or []

    def segment(self, number: int) -> Mapping[str, Any] | None:
        """Return a segment, ``None`` where there is none of that number."""
        answer = self._app("GET", f"/v1/segments/{number}", or_none=True)
        return None if self.app.is_unknown(answer) else self._segment(answer)

    def create_segment(self, name: str, description: str) -> int:
        """Make an empty manual segment and return its number."""
        segment = {"name": name, "description": description}
        answer = self._app("POST", "/v1/segments", json={"segment": segment})
        return int(self._segment(answer)["id"])

    def members(self, number: int) -> Iterator[Mapping[str, Any]]:
        """Yield the identifiers (``id``, ``email``, ``cio_id``) of everybody in a segment.

        A page that fails is asked for again.
        """
        start = ""
        while True:
            query = {"limit": str(MEMBERS_A_PAGE)} | ({"start": start} if start else {})
            for attempt in attempts():
                with attempt:
                    page = self.app.object(self._app("GET", f"/v1/segments/{number}/membership", params=query))
            yield from page.get("identifiers") or ()
            start = page.get("next") or ""
            if not start:
                return

    def change_members(self, number: int, ids: Sequence[str], id_type: IdType, *, enter: bool) -> None:
        """Put people into a manual segment or take them out; who isn't there is ignored."""
        way = "add_customers" if enter else "remove_customers"
        path = f"/api/v1/segments/{number}/{way}"
        self.track.call("POST", path, params={"id_type": id_type}, json={"ids": list(ids)})

    def people(self, ids: Sequence[str], id_type: IdType) -> dict[str, Person]:
        """Return those of up to 100 people that Customer.io knows, by the ids that were asked for."""
        answer = self._app("POST", "/v1/customers/attributes", params={"id_type": id_type}, json={"ids": list(ids)})
        found: dict[str, Person] = {}
        for entry in self.app.object(answer).get("customers") or ():
            # The reference wraps each in `customer`; the API was seen not to.
            who = entry.get("customer", entry).get("identifiers") or {}
            found[_folded(who.get(id_type) or "", id_type)] = Person(who.get("id") or None)
        return {each: found[folded] for each in ids if (folded := _folded(each, id_type)) in found}

    def has_object(self, kind: str, object_id: str) -> bool:
        """Say whether there is such an object."""
        path = f"/v1/objects/{quote(kind, safe='')}/{quote(object_id, safe='')}/attributes"
        return not self.app.is_unknown(self._app("GET", path, or_none=True))

    def batch(self, operations: Sequence[bytes]) -> dict[int, str]:
        """Apply operations, JSON texts each; return why some were refused, by their place.

        Raises:
            BatchRejected: an answer tells an error without its place, or all are refused as a whole.
        """
        refused: dict[int, str] = {}
        for first, part in _parts(operations):
            body = b'{"batch":[' + b",".join(part) + b"]}"
            headers = {"content-type": "application/json"}
            answer = self.track.call("POST", "/api/v2/batch", content=body, headers=headers)
            for error in self.track.object(answer).get("errors") or ():
                place = error.get("batch_index")
                if not isinstance(place, int) or not 0 <= place < len(part):
                    raise BatchRejected(f"Customer.io refused something without saying what: {_words(error)}")
                refused[first + place] = f"Customer.io: {_words(error)}"
        return refused

    def close(self) -> None:
        """Close the connections."""
        self.track.close()
        self.app.close()

    def _app(self, method: str, path: str, *, or_none: bool = False, **request: Any) -> httpx.Response:
        """Call the App API when it is this call's turn; ``or_none`` also returns a 404."""
        with self._turns.one():
            answer = self.app.ask(method, path, **request)
        if answer.is_success or (or_none and self.app.is_unknown(answer)):
            return answer
        raise self.app.failure(answer)

    def _segment(self, answer: httpx.Response) -> Mapping[str, Any]:
        found = self.app.object(answer).get("segment")
        if not isinstance(found, dict) or not isinstance(found.get("id"), int):
            raise RetryLater("Customer.io's answer is no segment")
        return found


def _parts(operations: Sequence[bytes]) -> Iterable[tuple[int, Sequence[bytes]]]:
    """Cut operations into what one request may hold, each part with the place of its first."""
    first, size = 0, 0
    for place, operation in enumerate(operations):
        if size + len(operation) + 1 > BATCH_BYTES - len(b'{"batch":[]}') and place > first:
            yield first, operations[first:place]
            first, size = place, 0
        size += len(operation) + 1
    if operations:
        yield first, operations[first:]


def _words(error: Mapping[str, Any]) -> str:
    said = " ".join(str(error[part]) for part in ("field", "message") if error.get(part))
    return shown(said or str(error.get("reason") or orjson.dumps(error).decode()))


def _folded(value: str, id_type: IdType) -> str:
    return value.lower() if id_type == "email" else value
