"""A segment has the members that Heap's reports add up to, in whatever order their pages arrive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.segments.heap_segments import PAGES_IN_MEMORY, Incomplete, apply_pages, waiting_pages
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.memberships import member_count, segment_changed_at, segment_named
from heap_integration_tests.segments.pages import receive

PEOPLE = st.frozensets(st.sampled_from("abcdef"), max_size=4)
_segments = count(1)


@dataclass(frozen=True)
class Page:
    """What a page says of a segment; a drain says that everybody left."""

    added: frozenset[str]
    removed: frozenset[str]
    drain: bool = False


TASKS = st.lists(
    st.one_of(
        st.lists(st.builds(Page, added=PEOPLE, removed=PEOPLE), min_size=1, max_size=3),
        st.just([Page(frozenset(), frozenset(), drain=True)]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Warehouse]]:
    folder = tmp_path_factory.mktemp("homes")
    store = Store(f"sqlite:///{folder}/store.db")
    yield store, Warehouse(f"duckdb:///{folder}/warehouse.duckdb")
    store.close()


def members(warehouse: Warehouse, segment: int) -> set[str]:
    with warehouse.read() as con:
        rows = con.execute("select identity from segment_members where segment_id = ?", [segment]).fetchall()
        assert member_count(con, segment) == len(rows)
    found = {name for (name,) in rows}
    assert len(found) == len(rows)
    return found


def expected(tasks: Sequence[Sequence[Page]], arrivals: Sequence[tuple[int, int]]) -> set[str]:
    """Return the members after the tasks, one after the other as the first page of each arrived."""
    first_seen = list(dict.fromkeys(task for task, _ in arrivals))
    result: set[str] = set()
    for task in first_seen:
        for page in tasks[task]:
            result = set() if page.drain else (result - page.removed) | page.added
    return result


@settings(max_examples=40)
@given(tasks=TASKS, data=st.data())
def test_any_order_of_arrival_gives_the_members_of_a_simple_model(
    homes: tuple[Store, Warehouse], tasks: list[list[Page]], data: st.DataObject
) -> None:
    store, warehouse = homes
    segment = next(_segments)
    everything = [(task, page) for task, pages in enumerate(tasks) for page in range(len(pages))]
    arrivals = data.draw(st.permutations(everything), label="arrivals")
    repeated = data.draw(st.lists(st.sampled_from(everything), max_size=3), label="repeated")
    apply_after = data.draw(st.sets(st.integers(0, len(arrivals)), max_size=2), label="apply after")
    for at, (task, number) in enumerate([*arrivals, *repeated]):
        page = tasks[task][number]
        receive(
            store,
            segment,
            f"{segment}/{task}",
            float(at),
            added=page.added,
            removed=page.removed,
            page=number + 1,
            pages=len(tasks[task]),
            drain=page.drain,
        )
        if at in apply_after:
            apply_pages(store, warehouse)
    applied = apply_pages(store, warehouse)
    assert applied.incomplete == ()
    assert waiting_pages(store)[0] == 0
    assert members(warehouse, segment) == expected(tasks, arrivals)


def test_a_task_waits_for_its_last_page_and_later_tasks_do_not_wait_for_it(homes: tuple[Store, Warehouse]) -> None:
    store, warehouse = homes
    segment = next(_segments)
    receive(store, segment, f"{segment}/early", 1, added=["ann", "bob"], page=1, pages=2)
    receive(store, segment, f"{segment}/later", 2, removed=["ann"], added=["cleo"])
    waiting = Incomplete(f"{segment}/early", segment, f"Segment {segment}", pages=1, total=2, since=1.0)
    assert apply_pages(store, warehouse).incomplete == (waiting,)
    assert members(warehouse, segment) == {"cleo"}

    receive(store, segment, f"{segment}/early", 3, added=["dan"], page=2, pages=2)
    applied = apply_pages(store, warehouse)
    assert (applied.tasks, applied.pages, applied.added, applied.removed) == (1, 2, 2, 0)
    assert members(warehouse, segment) == {"bob", "cleo", "dan"}
    with warehouse.read() as con:
        assert segment_named(con, f"Segment {segment}") == segment
        assert segment_changed_at(con, segment) == datetime.fromtimestamp(2, UTC)


def test_a_page_that_is_repeated_after_it_was_applied_changes_nothing(homes: tuple[Store, Warehouse]) -> None:
    store, warehouse = homes
    segment = next(_segments)
    receive(store, segment, f"{segment}/join", 1, added=["ann"])
    receive(store, segment, f"{segment}/leave", 2, removed=["ann"])
    apply_pages(store, warehouse)
    receive(store, segment, f"{segment}/join", 3, added=["ann"])
    assert apply_pages(store, warehouse).pages == 0
    assert waiting_pages(store)[0] == 0
    assert members(warehouse, segment) == set()


def test_who_joins_after_a_drain_is_a_member(homes: tuple[Store, Warehouse]) -> None:
    store, warehouse = homes
    segment = next(_segments)
    receive(store, segment, f"{segment}/1", 1, added=["ann", "bob"])
    receive(store, segment, f"{segment}/2", 2, drain=True)
    apply_pages(store, warehouse)
    assert members(warehouse, segment) == set()
    receive(store, segment, f"{segment}/3", 3, added=["bob"])
    apply_pages(store, warehouse)
    assert members(warehouse, segment) == {"bob"}


def test_a_segment_without_anybody_is_known(homes: tuple[Store, Warehouse]) -> None:
    store, warehouse = homes
    segment = next(_segments)
    receive(store, segment, f"{segment}/1", 1)
    apply_pages(store, warehouse)
    with warehouse.read() as con:
        assert segment_named(con, f"Segment {segment}") == segment
    assert members(warehouse, segment) == set()


def test_a_task_of_many_pages_is_applied_as_a_whole(
    homes: tuple[Store, Warehouse],
) -> None:
    store, warehouse = homes
    segment = next(_segments)
    pages = 2 * PAGES_IN_MEMORY + 1
    receive(store, segment, f"{segment}/0", 0.5, added=["person 7", "person 8"])
    for page in range(1, pages + 1):
        receive(store, segment, f"{segment}/1", page, added=[f"person {page}"], page=page, pages=pages)
    receive(store, segment, f"{segment}/2", pages + 1, removed=["person 8"])
    applied = apply_pages(store, warehouse)
    assert (applied.tasks, applied.pages, applied.added, applied.removed) == (3, pages + 2, pages - 1, 0)
    assert members(warehouse, segment) == {f"person {page}" for page in range(1, pages + 1)} - {"person 8"}
