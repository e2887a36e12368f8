"""Brings the pages of Heap's Segment Sync from the store into the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Row, delete, func, select

from heap_integration.store import Store
from heap_integration.store.tables import segment_pages
from heap_integration.warehouse import Warehouse

LOCK = "heap_segments"
TASKS_AT_ONCE = 50
DRAIN = "segment.users.drain"
# Heap's identities are never empty, so this one can stand for everybody.
EVERYBODY = ""


@dataclass(frozen=True)
class Applied:
    """What a round of pages did; ``incomplete`` are tasks that still lack pages and wait for them."""

    tasks: int = 0
    pages: int = 0
    added: int = 0
    removed: int = 0
    incomplete: tuple[str, ...] = ()


def apply_pages(store: Store, warehouse: Warehouse) -> Applied:
    """Apply every complete task whose pages aren't in the warehouse yet, each task whole and once.

    Pages leave the store once the warehouse has them; one that Heap repeats later is recognised.
    """
    with store.exclusive(LOCK):
        with warehouse.read(ample=True) as con:
            known = {task for (task,) in con.execute("select distinct sync_task_id from applied_pages").fetchall()}
        tasks = _tasks(store)
        _forget(store, [task for task in tasks if task in known])
        waiting = {task: pages for task, pages in tasks.items() if task not in known}
        complete = [task for task, pages in waiting.items() if len(pages) == pages[0].total_pages]
        total = Applied(incomplete=tuple(task for task in waiting if task not in set(complete)))
        for start in range(0, len(complete), TASKS_AT_ONCE):
            total = _apply(store, warehouse, complete[start : start + TASKS_AT_ONCE], total)
        return total


def waiting_pages(store: Store) -> tuple[int, float]:
    """Return how many pages wait and when the newest came (seconds since the epoch)."""
    query = select(func.count(), func.coalesce(func.max(segment_pages.c.received_at), 0.0)).select_from(segment_pages)
    with store.read() as connection:
        pages, newest = connection.execute(query).one()
    return int(pages), float(newest)


def _apply(store: Store, warehouse: Warehouse, tasks: Sequence[str], total: Applied) -> Applied:
    pages = [page for task in tasks for page in _full_pages(store, task)]
    changes = _changes(pages)
    with warehouse.write(ample=True) as con:
        con.register("changes", changes)
        con.execute("insert into segment_changes by name select * from changes")
        con.unregister("changes")
        con.executemany(
            "insert into applied_pages values (?, ?)", [(page.sync_task_id, page.page_number) for page in pages]
        )
    _forget(store, tasks)
    members = changes.column("member").to_pylist()
    return Applied(
        total.tasks + len(tasks),
        total.pages + len(pages),
        total.added + sum(members),
        total.removed + len(members) - sum(members),
        total.incomplete,
    )


def _forget(store: Store, tasks: Sequence[str]) -> None:
    if tasks:
        with store.begin() as connection:
            connection.execute(delete(segment_pages).where(segment_pages.c.sync_task_id.in_(tasks)))


def _tasks(store: Store) -> dict[str, list[Row[Any]]]:
    columns = segment_pages.c
    query = select(columns.sync_task_id, columns.page_number, columns.total_pages, columns.received_at)
    tasks: dict[str, list[Row[Any]]] = {}
    with store.read() as connection:
        for row in connection.execute(query.order_by(columns.received_at, columns.page_number)):
            tasks.setdefault(row.sync_task_id, []).append(row)
    return tasks


def _full_pages(store: Store, task: str) -> Sequence[Row[Any]]:
    query = select(segment_pages).where(segment_pages.c.sync_task_id == task).order_by(segment_pages.c.page_number)
    with store.read() as connection:
        return connection.execute(query).all()


def _changes(pages: Sequence[Row[Any]]) -> Any:
    import pyarrow as pa

    began: dict[str, float] = {}
    for page in pages:
        began[page.sync_task_id] = min(page.received_at, began.get(page.sync_task_id, page.received_at))
    columns: dict[str, list[Any]] = {
        "segment_id": [],
        "segment_name": [],
        "identity": [],
        "member": [],
        "task_order": [],
        "page_number": [],
    }
    for page in pages:
        gone = [EVERYBODY] if page.action == DRAIN else orjson.loads(page.removed)
        for member, identities in ((False, gone), (True, orjson.loads(page.added))):
            for identity in identities:
                row = (
                    page.segment_id,
                    page.segment_name,
                    identity,
                    member,
                    began[page.sync_task_id],
                    page.page_number,
                )
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    types = (pa.int64(), pa.string(), pa.string(), pa.bool_(), pa.float64(), pa.int32())
    return pa.table({name: pa.array(values, kind) for (name, values), kind in zip(columns.items(), types, strict=True)})
