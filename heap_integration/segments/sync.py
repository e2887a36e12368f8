"""Keeps a destination equal to what is wanted there: the difference, its delivery, what was acknowledged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import TYPE_CHECKING

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import KEY_BYTES, SETTLE_BATCHES, Ledger, settle
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import (
    UNKNOWN_THERE,
    BatchRejected,
    MemberChange,
    NotAuthorised,
    Outcome,
    ProfileChange,
    Record,
    RetryLater,
    Sender,
    Status,
    Unfit,
)
from heap_integration.segments.wanted import Wanted
from heap_integration.store import Store
from heap_integration.sync_settings import Guards, Mode
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.memberships import (
    NOBODY,
    Action,
    Difference,
    Matched,
    Planned,
    Question,
    Removes,
    SyncRun,
    acknowledged_changes,
    baseline_size,
    find_difference,
    finish_drain,
    is_new,
    planned_changes,
    record_run,
    sample_difference,
    settle_silently,
    settle_sync,
    write_plan,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "GuardStopped",
    "Matched",
    "Payload",
    "Preview",
    "RunOptions",
    "Sample",
    "Sync",
    "SyncReport",
    "member_change",
]

# Of a planned row: action, identity, properties wanted, properties acknowledged. None: there is nothing to tell.
Payload = Callable[[int, str, str | None, str | None], MemberChange | ProfileChange | None]

# So many planned rows are in memory at once.
PIECE = 20_000
# After a crash at most so many changes more than were on their way are told again.
HANDED_OUT = 1_000
# The destination's members are read in pieces of so many ids.
IDS = 10_000
# The warehouse takes outcomes in pieces of about so many records.
SETTLE_RECORDS = 500_000
MOST_BATCHES = 10_000
# What a change costs in a request beside its identity and properties.
CHANGE_BYTES = 16


class GuardStopped(ValueError):
    """A sync that would do more than its guards allow; nothing was sent."""


@dataclass(frozen=True)
class RunOptions:
    """What is asked of one run.

    ``confirm`` lets it do what a guard would stop; ``full`` tells the destination everything that is wanted again;
    ``only`` is the one identity (the destination's id) that a test is about.
    """

    confirm: bool = False
    full: bool = False
    only: str | None = None


@dataclass(frozen=True)
class SyncReport:
    """What a sync did; ``read = sent + unchanged + rejected + suppressed + pending``.

    ``wanted`` is the size of the source, ``read`` everybody the sync had to decide on: who is wanted or was there.
    ``added``, ``removed`` and ``updated`` are what the destination acknowledged as news; ``sent`` counts what it was
    told again too. ``unknown`` of the rejected are not known there. ``held`` is who is there now, as far as is
    acknowledged.
    """

    wanted: int
    read: int
    sent: int
    added: int
    removed: int
    updated: int
    unchanged: int
    rejected: int
    suppressed: int
    pending: int
    unknown: int
    held: int
    tally: Tally = field(default_factory=Tally)

    @property
    def planned(self) -> int:
        """Changes the sync had to tell."""
        return self.read - self.unchanged


@dataclass(frozen=True)
class Sample:
    """One change of a preview: the texts wanted and acknowledged, and what would be told (``None``: nothing)."""

    identity: str
    action: Action
    properties: str | None
    previous: str | None
    change: MemberChange | ProfileChange | None
    unfit: str = ""


@dataclass(frozen=True)
class Preview:
    """What a run would do now; nothing was sent and nothing was noted.

    ``again`` counts what would be told once more although it was acknowledged, or may have arrived. ``stopped`` is
    what a guard would say, empty where none would stop the run. ``known`` is false while the source has told nothing.
    """

    wanted: int
    held: int
    added: int
    removed: int
    updated: int
    again: int
    unchanged: int
    stopped: str = ""
    known: bool = True
    samples: Sequence[Sample] = ()


def member_change(action: int, identity: str, _properties: str | None, _previous: str | None) -> MemberChange:
    """Return what a planned row of a membership tells the destination."""
    return MemberChange(identity, action != Action.REMOVE)


def _nobody_can_say() -> Iterator[str] | None:
    return None


@dataclass
class Sync:
    """Keeps a destination equal to what is wanted there, memberships and profiles alike.

    The baseline is what the destination has acknowledged: only the difference to it is sent, and only an
    acknowledgement moves it. So a sync that dies is finished by the next one, and somebody the destination refused is
    tried again. What was handed out and has no outcome may have arrived or not: whoever it is about is told
    again what is wanted by then.

    ``wanted`` is ``None`` while the source has told nothing yet; nothing happens then. ``existing`` yields who is at
    the destination already; it is asked before the first change goes out. Those who are wanted are left as they are,
    and nobody of them is removed by a sync that ``removes`` its own.
    """

    name: str
    wanted: Wanted | None
    warehouse: Warehouse
    store: Store
    sender: Sender
    mode: Mode = "mirror"
    guards: Guards = field(default_factory=Guards)
    payload: Payload = member_change
    existing: Callable[[], Iterator[str] | None] = _nobody_can_say
    removes: Removes = "own"

    @property
    def limiter(self) -> str:
        """What the windows are kept under: syncs of one kind to one destination share them."""
        return self.name.rpartition("/")[0] or self.name

    @property
    def ledger(self) -> Ledger:
        """The ledger of this sync."""
        return Ledger(self.store, self.name)

    def run(
        self,
        options: RunOptions | None = None,
        *,
        matched: Matched | None = None,
        go_on: Callable[[], bool] = lambda: True,
        patience: Patience | None = None,
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> SyncReport:
        """Send the difference; ``matched`` is what the source says of itself, for the history.

        Raises:
            GuardStopped: it would do more than the guards allow; nothing was sent.
            DeliveryStopped: the destination stayed out of reach or refuses the credentials.
        """
        options = options or RunOptions()
        matched = matched or Matched(changed_at=self.wanted.changed_at if self.wanted else None)
        with self.store.exclusive(self.name, None):
            self.settle()
            found, positions, before = self._plan(options)
            changes = _Changes(self, positions, options.only)
            finish = _Finish(self, options, matched, found, changes, before)
            try:
                tally = deliver(
                    changes,
                    self.sender,
                    self.ledger,
                    pace=Pace(self.store, self.limiter, self.sender.limits.windows),
                    go_on=go_on,
                    patience=patience,
                    progress=progress,
                )
            except DeliveryStopped as stopped:
                finish.report(stopped.tally)
                raise
            return finish.report(tally)

    def preview(self, samples: int = 10, options: RunOptions | None = None) -> Preview:
        """Return what ``run`` would do, with a few changes of each kind, and change nothing.

        Changes on their way, or not yet settled, count as not acknowledged.

        Raises:
            DeliveryStopped: the destination can't say who is there already.
        """
        options = options or RunOptions()
        question = self._question(options)
        if question is None:
            with self.warehouse.read(ample=True) as con:
                return Preview(0, baseline_size(con, self.name), 0, 0, 0, 0, 0, known=False)
        with self._members_there() as there, self.warehouse.read(ample=True) as con:
            found = find_difference(con, question, there)
            planned = [sample for action in Action for sample in sample_difference(con, action, samples)]
        return Preview(
            wanted=found.wanted,
            held=found.held,
            added=found.added,
            removed=found.removed,
            updated=found.updated,
            again=found.again,
            unchanged=found.unchanged,
            stopped=self._objection(options, found),
            samples=[self._sample(each) for each in planned],
        )

    def question(self) -> Question | None:
        """Return what this sync asks of the warehouse, ``None`` while the source has told nothing yet."""
        return self._question(RunOptions())

    def _question(self, options: RunOptions) -> Question | None:
        wanted = Wanted(NOBODY) if self.mode == "drain" else self.wanted
        if wanted is None:
            return None
        return Question(
            sync=self.name,
            sql=wanted.sql,
            parameters=wanted.parameters,
            mode=self.mode,
            removes=self.removes,
            full=options.full,
            only=options.only,
            mark=self.handed_out,
        )

    def _plan(self, options: RunOptions) -> tuple[Difference, range, tuple[int, int, int]]:
        question = self._question(options)
        if question is None:
            with self.warehouse.read() as con:
                return Difference(), range(0), acknowledged_changes(con, self.name)
        # What a guard stops is rolled back as a whole, who was found at the destination included.
        with self._members_there() as there, self.warehouse.write(ample=True) as con:
            found = find_difference(con, question, there)
            objection = "" if options.confirm else self._objection(options, found)
            if objection:
                raise GuardStopped(objection)
            positions = write_plan(con, question, found, adopts=there is not None)
            return found, positions, acknowledged_changes(con, self.name)

    @contextmanager
    def _members_there(self) -> Iterator[pa.RecordBatchReader | None]:
        with self.warehouse.read() as con:
            asks = self.mode != "drain" and is_new(con, self.name)
        if not asks:
            yield None
            return
        import pyarrow as pa

        schema = pa.schema([("identity", pa.string())])
        # It may take long to read them all: nothing of the warehouse is held meanwhile, and nothing grows in memory.
        with tempfile.TemporaryFile() as file:
            with pa.ipc.new_stream(file, schema) as writer:
                for piece in self._existing():
                    writer.write_batch(pa.record_batch([pa.array(piece, pa.string())], schema=schema))
            file.seek(0)
            with pa.ipc.open_stream(file) as reader:
                yield reader

    def _existing(self) -> Iterator[list[str]]:
        try:
            ids = self.existing() or iter(())
            while piece := list(islice(ids, IDS)):
                yield piece
        except (RetryLater, NotAuthorised, BatchRejected) as error:
            raise DeliveryStopped(f"who is there already can't be read: {error}", Tally()) from error

    def _objection(self, options: RunOptions, found: Difference) -> str:
        if self.mode == "drain" or options.only is not None:
            return ""
        return objection(self.guards, found)

    def _sample(self, planned: Planned) -> Sample:
        change, unfit = None, ""
        try:
            change = self.payload(planned.action, planned.identity, planned.properties, planned.previous)
        except Unfit as error:
            unfit = str(error)
        return Sample(planned.identity, planned.action, planned.properties, planned.previous, change, unfit)

    @property
    def handed_out(self) -> int:
        """The position below which planned changes were handed out, and may have been sent."""
        return int(self.store.recall(self._mark) or 0)

    @handed_out.setter
    def handed_out(self, position: int) -> None:
        self.store.remember(self._mark, position)

    @property
    def _mark(self) -> str:
        return f"sync {self.name}: handed out"

    def settle(self) -> None:
        """Carry into the warehouse what the ledger has of this sync.

        Raises:
            DeliveryStopped: the store or the warehouse can't be used.
        """
        settle(
            self.ledger,
            self.warehouse,
            lambda con: settle_sync(con, self.name),
            most=min(max(SETTLE_RECORDS // self.sender.limits.batch_records, SETTLE_BATCHES), MOST_BATCHES),
            ample=True,
        )


def objection(guards: Guards, found: Difference) -> str:
    """Return why the guards stop a sync, in words; empty where they don't."""
    there = found.held + found.ghosts
    confirm = "Nothing was sent. If this is meant, run the sync again with confirm: true"
    if guards.empty_source == "stop" and not found.wanted and there:
        return f"the source is empty while {_people(there)} at the destination (guards: empty_source: stop). {confirm}"
    share = 100 * found.removed / there if there else 0.0
    if found.removed >= guards.removals_to_guard and share > guards.largest_removal_percent:
        return (
            f"this would remove {found.removed:,} of the {there:,} who are there, {share:.1f} %; allowed are "
            f"{guards.largest_removal_percent:g} % (guards: largest_removal_percent). {confirm}"
        )
    if guards.largest_removal is not None and found.removed > guards.largest_removal:
        return (
            f"this would remove {found.removed:,}; allowed are {guards.largest_removal:,} in one run "
            f"(guards: largest_removal). {confirm}"
        )
    if guards.largest_addition is not None and found.added > guards.largest_addition:
        return (
            f"this would add {found.added:,}; allowed are {guards.largest_addition:,} in one run "
            f"(guards: largest_addition). {confirm}"
        )
    return ""


def _people(number: int) -> str:
    return "1 is" if number == 1 else f"{number:,} are"


class _Changes:
    """The planned changes of one run, read in pieces; ``silent`` counts those that leave nothing to tell."""

    def __init__(self, sync: Sync, positions: range, only: str | None) -> None:
        self.sync = sync
        self.positions = positions
        self.only = only
        self.silent = 0

    def __iter__(self) -> Iterator[Record | Outcome]:
        mark = self.sync.handed_out if self.positions else 0
        for start in range(self.positions.start, self.positions.stop, PIECE):
            piece = range(start, min(start + PIECE, self.positions.stop))
            with self.sync.warehouse.read(ample=True) as con:
                columns = planned_changes(con, self.sync.name, piece, self.only)
            items = [self._item(*row) for row in zip(*columns, strict=True)]
            self._settle_silent([key for key, item in zip(columns[0], items, strict=True) if item is None])
            for first in range(0, len(items), HANDED_OUT):
                reached = min(piece.start + first + HANDED_OUT, piece.stop)
                if reached > mark:
                    self.sync.handed_out = mark = reached
                yield from filter(None, items[first : first + HANDED_OUT])

    def _item(
        self, key: bytes, identity: str, action: int, properties: str | None, previous: str | None
    ) -> Record | Outcome | None:
        try:
            change = self.sync.payload(action, identity, properties, previous)
        except Unfit as unfit:
            return Outcome(key, Status.REJECTED, str(unfit))
        if change is None:
            return None
        return Record(key, change, size=len(identity) + len(properties or "") + CHANGE_BYTES)

    def _settle_silent(self, keys: Sequence[bytes]) -> None:
        if not keys:
            return
        import pyarrow as pa

        with self.sync.warehouse.write(ample=True) as con:
            settle_silently(con, self.sync.name, pa.table({"key": pa.array(keys, pa.binary(KEY_BYTES))}))
        self.silent += len(keys)


@dataclass
class _Finish:
    """Settles a run and counts what it did."""

    sync: Sync
    options: RunOptions
    matched: Matched
    found: Difference
    changes: _Changes
    before: tuple[int, int, int]

    def report(self, tally: Tally) -> SyncReport:
        sync, found = self.sync, self.found
        sync.settle()
        with sync.warehouse.write(ample=True) as con:
            if sync.mode == "drain":
                finish_drain(con, sync.name)
            after = acknowledged_changes(con, sync.name)
            added, removed, updated = (now - then for now, then in zip(after, self.before, strict=True))
            told = found.planned - self.changes.silent
            report = SyncReport(
                wanted=found.wanted,
                read=found.unchanged + found.planned,
                sent=tally.accepted,
                added=added,
                removed=removed,
                updated=updated,
                unchanged=found.unchanged + self.changes.silent,
                rejected=tally.rejected,
                suppressed=tally.suppressed,
                pending=told - tally.accepted - tally.rejected - tally.suppressed,
                unknown=sum(count for why, count in tally.reasons.items() if why.startswith(UNKNOWN_THERE)),
                held=baseline_size(con, sync.name),
                tally=tally,
            )
            if self.options.only is None:
                record_run(con, sync.name, _counts(report), self.matched)
        return report


def _counts(report: SyncReport) -> SyncRun:
    return SyncRun(**{each.name: getattr(report, each.name) for each in fields(SyncRun)})
