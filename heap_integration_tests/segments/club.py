"""A destination that knows what it was told, refuses some people, slams the door, and loses its answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import orjson
import pytest

from heap_integration.delivery.engine import Patience
from heap_integration.delivery.records import Limits, NotAuthorised, Outcome, Record, Status
from heap_integration.segments.sync import RunOptions, Sync, SyncReport
from heap_integration.segments.wanted import Wanted
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration_tests.segments.directory import applied

_numbers = count(1)


class Killed(BaseException):
    """The process died while the destination had the batch and nobody had its answer."""


class Club:
    """Takes members and profiles; ``told`` is what each request said, in order."""

    def __init__(self, members: Iterable[str] = (), *, refused: Mapping[str, str] | None = None) -> None:
        self.limits = Limits(batch_records=1, concurrency=2)
        self.refused = dict(refused or {})
        self.members: set[str] = set(members)
        self.profiles: dict[str, dict[str, Any]] = {}
        self.told: list[Any] = []
        self.calls_left = 10**9
        self.dies_after = 10**9

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        return [self._send(record) for record in batch]

    def _send(self, record: Record) -> Outcome:
        if self.calls_left <= 0:
            raise NotAuthorised("the door is closed")
        self.calls_left -= 1
        self.told.append(record.payload)
        if reason := self.refused.get(record.payload.identity):
            return Outcome(record.key, Status.REJECTED, reason)
        self._take(record.payload)
        self.dies_after -= 1
        if self.dies_after < 0:
            raise Killed
        return Outcome(record.key, Status.ACCEPTED)

    def _take(self, change: Any) -> None:
        if hasattr(change, "member"):
            (self.members.add if change.member else self.members.discard)(change.identity)
            return
        self.profiles[change.identity] = applied(self.profiles.get(change.identity, {}), change.changes)
        if change.leaving:
            del self.profiles[change.identity]


class Following:
    """A sync between a source that a test decides on and a club."""

    def __init__(self, store: Store, warehouse: Warehouse, club: Club, **settings: Any) -> None:
        self.club = club
        self.members: set[str] = set()
        self.sync = Sync(
            name=f"club/{next(_numbers)}",
            wanted=None,
            warehouse=warehouse,
            store=store,
            sender=club,
            **settings,
        )

    def become(self, members: Collection[str]) -> None:
        """Let the source want these members."""
        self.members = set(members)
        sql = "select unnest($members)::varchar as identity, null::varchar as properties"
        self.sync.wanted = Wanted(sql, {"members": sorted(members)})

    def describe(self, profiles: Mapping[str, Any]) -> None:
        """Let the source want these profiles; a text instead of one says why it can't go out."""
        sql = "select unnest($ids)::varchar as identity, unnest($texts)::varchar as properties"
        texts = [orjson.dumps(profile, option=orjson.OPT_SORT_KEYS).decode() for profile in profiles.values()]
        self.sync.wanted = Wanted(sql, {"ids": list(profiles), "texts": texts})

    def run(self, **options: Any) -> SyncReport:
        """Run the sync; ``club.told`` is what this run said."""
        self.club.told.clear()
        report = self.sync.run(RunOptions(**options), patience=Patience(attempts=2, first_wait=0.001))
        settled = report.sent + report.unchanged + report.rejected + report.suppressed
        assert report.read == settled + report.pending
        if "only" not in options:
            with self.sync.warehouse.read() as con:
                waiting = con.execute(
                    """
                    select count(*) from sync_plan where sync = $sync and position >= 0
                       and identity not in (select identity from sync_rejections where sync = $sync)
                    """,
                    {"sync": self.sync.name},
                ).fetchone()
            assert waiting == (report.pending,)
        return report

    def die(self, after: int = 0) -> None:
        """Run the sync, and die when the destination has taken this many changes and one more."""
        self.club.dies_after = after
        with pytest.raises(Killed):
            self.run()
        self.club.dies_after = 10**9

    def told(self) -> list[tuple[str, bool]]:
        """Return whom the last run let in and put out."""
        return sorted((change.identity, change.member) for change in self.club.told)
