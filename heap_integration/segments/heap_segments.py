"""Brings the pages of Heap's Segment Sync from the store into the warehouse, and keeps who is a member."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, delete, func, select

from heap_integration.store import Store
from heap_integration.store.tables import segment_pages
from heap_integration.warehouse import Warehouse

if TYPE_CHECKING:
    import duckdb

LOCK = "heap_segments"
DRAIN = "segment.users.drain"
# Tasks are whole in one transaction; small ones share it.
PAGES_AT_ONCE = 500
# So many pages are in memory at once, whatever a task's size.
PAGES_IN_MEMORY = 200

_page = segment_pages.c

_TOLD = """
create or replace temp table told (segment_id bigint, name varchar, action varchar, task_order double)
"""
# A word about somebody, as a number, the newest the largest: task, page, whether they enter. One number instead of
# three columns lets the newest ones be found in bounded memory.
_WORDS = "create or replace temp table words (segment_id bigint, identity varchar, word bigint)"
_SAID = """
insert into words
select segment_id, unnest(from_json(added, '["VARCHAR"]')), ($task::bigint << 32) | (page_number::bigint << 1) | 1
from pages
union all
select segment_id, unnest(from_json(removed, '["VARCHAR"]')), ($task::bigint << 32) | (page_number::bigint << 1)
from pages
"""
_SEGMENTS = """
create or replace temp table segments_now as
select segment_id, arg_max(name, told_at) as name, max(told_at) as told_at, max(drained_at) as drained_at
from (
    from heap_segments
    union all
    select segment_id, name, task_order, case when action = $drain then task_order else -1 end from told
)
where segment_id in (select segment_id from told)
group by segment_id
"""
# The newest word about somebody counts. Within a page they are removed before they are added.
_NEWS = """
create or replace temp table news as
with words_now as (select segment_id, identity, max(word) as word from words group by all),
newest as (
    select segment_id, identity, word & 1 = 1 as member, task_order, ((word >> 1) & 2147483647)::integer as page_number
    from words_now join tasks on tasks.task = word >> 32
)
select newest.* from newest
join segments_now using (segment_id)
left join segment_changes as known
    on known.segment_id = newest.segment_id and known.identity = newest.identity
where newest.task_order > drained_at and (
    known.identity is null
    or (newest.task_order, newest.page_number, newest.member) > (known.task_order, known.page_number, known.member)
)
"""
_DRAINED = "select segment_id from told where action = $drain"


@dataclass(frozen=True)
class Incomplete:
    """A task that lacks pages and waits for them; ``since`` is when its first page came (seconds since the epoch)."""

    task: str
    segment_id: int
    segment_name: str
    pages: int
    total: int
    since: float


@dataclass(frozen=True)
class Applied:
    """What a round of pages did; ``added`` and ``removed`` are members who entered and left, over all segments."""

    tasks: int = 0
    pages: int = 0
    added: int = 0
    removed: int = 0
    incomplete: tuple[Incomplete, ...] = ()


def apply_pages(store: Store, warehouse: Warehouse) -> Applied:
    """Apply every complete task whose pages aren't in the warehouse yet, each task whole and once.

    Pages leave the store once the warehouse has them; one that Heap repeats later is recognised. ``segment_changes``
    keeps the newest word about each identity, and ``segment_members`` who is a member by that. Who has left stands
    there (``not member``) only against pages that come late: such rows, and ``applied_pages``, could be pruned once
    they are older than anything Heap still repeats. What came before a drain is pruned with it.
    """
    with store.exclusive(LOCK):
        tasks = _tasks(store)
        known = _known(warehouse, [task.name for task in tasks])
        _forget(store, sorted(known))
        waiting = [task for task in tasks if task.name not in known]
        tasks_done = pages_done = added = removed = 0
        for group in _groups([task for task in waiting if task.is_complete]):
            entered, left = _apply(store, warehouse, group)
            _forget(store, [task.name for task in group])
            tasks_done += len(group)
            pages_done += sum(task.pages for task in group)
            added += entered
            removed += left
        incomplete = tuple(task.incomplete() for task in waiting if not task.is_complete)
        return Applied(tasks_done, pages_done, added, removed, incomplete)


def waiting_pages(store: Store) -> tuple[int, float]:
    """Return how many pages wait and when the newest came (seconds since the epoch)."""
    query = select(func.count(), func.coalesce(func.max(_page.received_at), 0.0)).select_from(segment_pages)
    with store.read() as connection:
        pages, newest = connection.execute(query).one()
    return int(pages), float(newest)


def incomplete_tasks(store: Store) -> list[Incomplete]:
    """Return the tasks that lack pages now, oldest first."""
    return [task.incomplete() for task in _tasks(store) if not task.is_complete]


@dataclass(frozen=True)
class _Task:
    """A task as far as its pages are in the store; it is as new as its first page's arrival."""

    name: str
    segment_id: int
    segment_name: str
    pages: int
    total: int
    began: float

    @property
    def is_complete(self) -> bool:
        return self.pages >= self.total

    def incomplete(self) -> Incomplete:
        return Incomplete(self.name, self.segment_id, self.segment_name, self.pages, self.total, self.began)


def _tasks(store: Store) -> list[_Task]:
    began = func.min(_page.received_at)
    query = (
        select(
            _page.sync_task_id,
            func.min(_page.segment_id),
            func.max(_page.segment_name),
            func.count(),
            func.max(_page.total_pages),
            began,
        )
        .group_by(_page.sync_task_id)
        .order_by(began, _page.sync_task_id)
    )
    with store.read() as connection:
        return [_Task(*row) for row in connection.execute(query)]


def _known(warehouse: Warehouse, tasks: Sequence[str]) -> set[str]:
    if not tasks:
        return set()
    with warehouse.read(ample=True) as con:
        found = con.execute(
            "select distinct sync_task_id from applied_pages where sync_task_id in (select unnest($tasks))",
            {"tasks": list(tasks)},
        )
        return {task for (task,) in found.fetchall()}


def _groups(tasks: Sequence[_Task]) -> Iterator[list[_Task]]:
    group: list[_Task] = []
    for task in tasks:
        if group and sum(each.pages for each in group) + task.pages > PAGES_AT_ONCE:
            yield group
            group = []
        group.append(task)
    if group:
        yield group


def _apply(store: Store, warehouse: Warehouse, tasks: Sequence[_Task]) -> tuple[int, int]:
    """Apply tasks in one transaction and return how many entered and left."""
    with warehouse.write(ample=True) as con:
        con.execute(_TOLD)
        con.execute(_WORDS)
        con.execute("create or replace temp table tasks (task bigint, task_order double)")
        for number, task in enumerate(tasks):
            con.execute("insert into tasks values (?, ?)", [number, task.began])
            for pages in _pieces(store, task.name):
                _read(con, number, task, pages)
        con.execute(_SEGMENTS, {"drain": DRAIN})
        con.execute(_NEWS)
        con.execute("drop table words")
        return _move_members(con)


def _forget(store: Store, tasks: Sequence[str]) -> None:
    with store.begin() as connection:
        for task in tasks:
            connection.execute(delete(segment_pages).where(_page.sync_task_id == task))


def _pieces(store: Store, task: str) -> Iterator[Sequence[Row[Any]]]:
    after = -1
    query = select(segment_pages).where(_page.sync_task_id == task).order_by(_page.page_number).limit(PAGES_IN_MEMORY)
    while True:
        with store.read() as connection:
            pages = connection.execute(query.where(_page.page_number > after)).all()
        if not pages:
            return
        yield pages
        after = pages[-1].page_number


def _read(con: duckdb.DuckDBPyConnection, number: int, task: _Task, pages: Sequence[Row[Any]]) -> None:
    import pyarrow as pa

    rows = [
        (page.segment_id, page.segment_name, page.action, task.began, page.page_number, page.added, page.removed)
        for page in pages
    ]
    names = ("segment_id", "name", "action", "task_order", "page_number", "added", "removed")
    types = (pa.int64(), pa.string(), pa.string(), pa.float64(), pa.int32(), pa.string(), pa.string())
    columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), types, strict=True)]
    con.register("pages", pa.table(columns, names=names))
    con.execute("insert into told select distinct segment_id, name, action, task_order from pages")
    con.execute(_SAID, {"task": number})
    con.execute("insert into applied_pages select $task, page_number from pages", {"task": task.name})
    con.unregister("pages")


def _move_members(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    con.execute("delete from heap_segments where segment_id in (select segment_id from segments_now)")
    con.execute("insert into heap_segments by name from segments_now")
    left = 0
    if con.execute(f"select exists ({_DRAINED})", {"drain": DRAIN}).fetchone() == (True,):
        con.execute(
            "delete from segment_changes using segments_now as now "
            "where segment_changes.segment_id = now.segment_id and task_order <= drained_at"
        )
        left += _rows(
            con,
            f"""
            delete from segment_members where segment_id in ({_DRAINED}) and (segment_id, identity) not in (
                select (segment_id, identity) from segment_changes where member
            )
            """,
            {"drain": DRAIN},
        )
    same = "table_name.segment_id = news.segment_id and table_name.identity = news.identity"
    con.execute(f"delete from segment_changes as table_name using news where {same}")
    con.execute("insert into segment_changes by name from news")
    left += _rows(con, f"delete from segment_members as table_name using news where {same} and not news.member")
    entered = _rows(
        con,
        """
        insert into segment_members
        select segment_id, identity from news
        anti join segment_members using (segment_id, identity) where member
        """,
    )
    return entered, left


def _rows(con: duckdb.DuckDBPyConnection, statement: str, parameters: dict[str, Any] | None = None) -> int:
    row = con.execute(statement, parameters or {}).fetchone()
    return int(row[0]) if row else 0
