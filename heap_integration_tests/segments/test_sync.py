"""Only differences are sent, and only what was acknowledged moves the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_integration.delivery.engine import DeliveryStopped
from heap_integration.delivery.records import UNKNOWN_THERE, MemberChange, Outcome, Record, RetryLater
from heap_integration.segments.changes import profile_change
from heap_integration.segments.sync import GuardStopped, Matched, RunOptions
from heap_integration.store import Store
from heap_integration.sync_settings import Guards, Mode, ProfileField
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.memberships import (
    Action,
    apart,
    forget,
    known_syncs,
    last_runs,
    rejections,
    sync_history,
)
from heap_integration_tests.segments.club import Club, Following, Killed

Homes = tuple[Store, Warehouse]
FREE = Guards(empty_source="allow", largest_removal_percent=100)
CROWD = {f"person {number:02}" for number in range(30)}


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    folder = tmp_path_factory.mktemp("homes")
    store = Store(f"sqlite:///{folder}/store.db")
    yield store, Warehouse(f"duckdb:///{folder}/warehouse.duckdb")
    store.close()


def test_only_differences_are_sent(homes: Homes) -> None:
    club = Following(*homes, Club())
    club.become({"ann", "bob", "cleo"})
    first = club.run()
    assert (first.wanted, first.added, first.removed, first.unchanged, first.sent, first.held) == (3, 3, 0, 0, 3, 3)
    assert club.run().unchanged == 3
    assert club.told() == []
    club.become({"bob", "cleo", "dan"})
    third = club.run()
    assert (third.added, third.removed, third.unchanged, third.sent, third.held) == (1, 1, 2, 2, 3)
    assert club.told() == [("ann", False), ("dan", True)]
    assert club.club.members == club.members


def test_whom_the_destination_refuses_is_kept_with_the_reason_and_tried_again(homes: Homes) -> None:
    club = Following(*homes, Club(refused={"bob": f"{UNKNOWN_THERE}: bob", "cleo": "not you"}))
    club.become({"ann", "bob", "cleo"})
    report = club.run()
    assert (report.sent, report.rejected, report.unknown, report.held) == (1, 2, 1, 1)
    del club.club.refused["bob"]
    assert (club.run().sent, club.told()) == (1, [("bob", True), ("cleo", True)])
    with homes[1].read() as con:
        refused = rejections(con, club.sync.name)
        log = con.execute("select action, reason from sync_log.sync_rejections where sync = ?", [club.sync.name])
        assert log.fetchall() == [("add", "not you")]
    assert [(each.identity, each.action, each.reason) for each in refused] == [("cleo", Action.ADD, "not you")]


def test_a_source_that_has_told_nothing_yet_changes_nothing(homes: Homes) -> None:
    club = Following(*homes, Club())
    club.become({"ann"})
    club.run()
    club.sync.wanted = None
    report = club.run()
    assert (report.wanted, report.read, report.sent, report.held) == (0, 0, 0, 1)
    assert not club.sync.preview().known
    assert club.club.members == {"ann"}


def test_who_leaves_stays_where_the_sync_only_adds(homes: Homes) -> None:
    club = Following(*homes, Club(), mode="add_only")
    club.become({"ann", "bob"})
    club.run()
    club.become({"bob", "cleo"})
    report = club.run()
    assert (report.added, report.removed, report.unchanged, report.held) == (1, 0, 2, 3)
    assert club.club.members == {"ann", "bob", "cleo"}
    club.sync.mode = "mirror"
    club.run()
    assert club.club.members == {"bob", "cleo"}


def test_a_drain_takes_out_all_that_the_hub_has_put_there_and_no_guard_stops_it(homes: Homes) -> None:
    club = Following(*homes, Club(["guest", "ann"]), existing=lambda: iter(["guest", "ann"]))
    club.become({"ann", *CROWD})
    club.run()
    club.sync.mode = "drain"
    report = club.run()
    assert (report.wanted, report.removed, report.held) == (0, 30, 0)
    assert club.club.members == {"guest", "ann"}

    club.sync.mode = "mirror"
    club.run()
    club.become({"bob"})
    club.run(confirm=True)
    assert club.club.members == {"guest", "ann", "bob"}


def test_a_full_resync_tells_all_again_and_removes_who_is_superfluous(homes: Homes) -> None:
    club = Following(*homes, Club(), guards=FREE)
    club.become({"ann", "bob"})
    club.run()
    club.club.members = {"bob"}
    club.become({"ann", "cleo"})
    report = club.run(full=True)
    assert club.told() == [("ann", True), ("bob", False), ("cleo", True)]
    assert (report.sent, report.added, report.removed, report.unchanged) == (3, 1, 1, 0)
    assert club.club.members == {"ann", "cleo"}


def test_a_test_with_one_user_leaves_everybody_else_alone(homes: Homes) -> None:
    club = Following(*homes, Club(), guards=Guards(largest_addition=0))
    club.become({"ann", "bob"})
    report = club.run(only="bob")
    assert (report.read, report.sent, report.pending, club.told()) == (1, 1, 0, [("bob", True)])
    assert club.run(only="nobody").read == 0
    club.become({"ann"})
    club.run(only="bob")
    assert club.told() == [("bob", False)]
    with homes[1].read() as con:
        assert not sync_history(con, club.sync.name)
    club.run(confirm=True)
    assert club.told() == [("ann", True)]


@pytest.mark.parametrize(
    ("guards", "wanted", "words"),
    [
        (Guards(), set(), "the source is empty while 30 are at the destination"),
        (Guards(), sorted(CROWD)[:14], r"would remove 16 of the 30 who are there, 53.3 %; allowed are 50 %"),
        (Guards(largest_removal=1), sorted(CROWD)[:28], "would remove 2; allowed are 1 in one run"),
        (Guards(largest_addition=1), {*CROWD, "ann", "bob"}, "would add 2; allowed are 1 in one run"),
    ],
)
def test_a_guard_stops_a_sync_before_it_sends_anything_until_somebody_confirms(
    homes: Homes, guards: Guards, wanted: set[str], words: str
) -> None:
    club = Following(*homes, Club(), guards=FREE)
    club.become(CROWD)
    club.run()
    club.sync.guards = guards
    club.become(wanted)
    for _ in range(2):
        with pytest.raises(GuardStopped, match=f"{words}.*Nothing was sent.*confirm: true"):
            club.run()
    assert club.sync.preview().stopped
    assert club.told() == []
    club.run(confirm=True)
    assert club.club.members == set(wanted)


@pytest.mark.parametrize("crash", [False, True])
def test_who_was_there_before_stays_also_who_entered_and_left_since(homes: Homes, crash: bool) -> None:
    club = Following(*homes, Club(["ann", "guest"]), existing=lambda: iter(["ann", "guest"]), guards=FREE)
    for members in ({"ann"}, set[str](), {"ann", "guest", "bob"}):
        club.become(members)
        club.die(2) if crash and "bob" in members else club.run()
    assert club.club.members == {"ann", "guest", "bob"}
    club.become(set())
    club.run()
    assert club.club.members == {"ann", "guest"}


def test_a_first_test_with_one_user_makes_nobody_ours_who_was_there_before(homes: Homes) -> None:
    club = Following(*homes, Club(["ann"]), existing=lambda: iter(["ann"]))
    club.become({"ann", "bob"})
    club.run(only="bob")
    assert (club.run().unchanged, club.told()) == (2, [])
    club.become({"bob"})
    club.run()
    assert club.club.members == {"ann", "bob"}


def test_few_removals_need_no_guard(homes: Homes) -> None:
    club = Following(*homes, Club())
    club.become({"ann", "bob", "cleo"})
    club.run()
    club.become({"ann"})
    assert club.run().removed == 2


def test_a_guard_holds_after_a_crash_in_the_middle(homes: Homes) -> None:
    club = Following(*homes, Club())
    club.become(CROWD)
    club.club.dies_after = 12
    with pytest.raises(Killed):
        club.run()
    club.club.dies_after = 10**9
    club.become(set())
    for _ in range(2):
        with pytest.raises(GuardStopped, match="the source is empty while"):
            club.run()
    assert club.told() == []


def test_who_was_there_before_is_left_alone(homes: Homes) -> None:
    club = Following(*homes, Club(["ann", "guest"]), existing=lambda: iter(["ann", "guest"]))
    club.become({"ann", "bob"})
    assert (club.run().unchanged, club.told()) == (1, [("bob", True)])
    club.become({"bob"})
    report = club.run()
    assert (report.read, report.sent, report.held) == (1, 0, 1)
    assert club.club.members == {"ann", "bob", "guest"}


def test_who_was_there_before_goes_where_the_sync_removes_all(homes: Homes) -> None:
    club = Following(*homes, Club(["ann", "guest"]), existing=lambda: iter(["ann", "guest"]), removes="all")
    club.become({"ann", "bob"})
    assert (club.run().removed, club.told()) == (1, [("bob", True), ("guest", False)])
    assert club.club.members == {"ann", "bob"}


def test_the_destination_is_asked_who_is_there_once_and_not_after_a_crash(homes: Homes) -> None:
    club = Following(*homes, Club(["ann"]))
    asked: list[set[str]] = []

    def existing() -> Iterator[str]:
        asked.append(set(club.club.members))
        yield from sorted(club.club.members)
        if len(asked) == 1:
            raise RetryLater("no answer from the club")

    club.sync.existing = existing
    club.become({"ann", "bob", "cleo"})
    with pytest.raises(DeliveryStopped, match="who is there already can't be read: no answer from the club"):
        club.run()
    club.club.dies_after = 0
    with pytest.raises(Killed):
        club.run()
    club.club.dies_after = 10**9
    club.become(set())
    club.run(confirm=True)
    assert club.club.members == {"ann"}
    assert asked == [{"ann"}, {"ann"}]


def test_a_destination_that_joins_later_gets_all(homes: Homes) -> None:
    club, later = Following(*homes, Club()), Following(*homes, Club())
    for each in (club, later):
        each.become({"ann", "bob"})
        assert each.run().added == 2
    assert later.club.members == {"ann", "bob"}


def test_a_sync_that_was_stopped_is_finished_by_the_next_one(homes: Homes) -> None:
    club = Following(*homes, Club())
    club.become(CROWD)
    club.club.calls_left = 11
    with pytest.raises(DeliveryStopped, match="the door is closed"):
        club.run()
    assert len(club.club.members) == 11
    with homes[1].read() as con:
        question = club.sync.question()
        assert apart(con, club.sync.name, question).numbers["missing"] == 19
        assert apart(con, club.sync.name, question).explained
    club.club.calls_left = 100
    report = club.run()
    assert (report.added, report.unchanged, report.sent) == (19, 11, 19)
    assert club.club.members == CROWD


def test_whose_change_may_have_arrived_is_told_again_what_is_wanted_by_then(homes: Homes) -> None:
    club = Following(*homes, Club(), guards=FREE)
    club.become({"ann"})
    club.run()
    club.become({"bob"})
    club.club.dies_after = 1
    with pytest.raises(Killed):
        club.run()
    club.club.dies_after = 10**9
    assert club.club.members == {"bob"}
    club.become({"ann"})
    club.run()
    assert club.club.members == {"ann"}
    assert club.run().unchanged == 1
    assert club.told() == []


@pytest.mark.parametrize("arrives", [False, True])
def test_where_nobody_is_removed_a_change_in_doubt_waits_until_it_matters(homes: Homes, arrives: bool) -> None:
    club = Following(*homes, Club(), guards=FREE)
    club.become({"ann", "bob"})
    club.run()
    club.become({"cleo"})
    club.die(2 if arrives else 0)
    club.sync.mode = "add_only"
    club.become({"dan"})
    club.run()
    assert (club.run().planned, club.told()) == (0, [])
    club.become({"ann", "bob", "cleo", "dan"})
    club.run()
    assert club.club.members == {"ann", "bob", "cleo", "dan"}


@pytest.mark.parametrize("leaves_first", [False, True])
def test_a_refusal_does_not_make_a_change_in_doubt_forgotten(homes: Homes, leaves_first: bool) -> None:
    club = Following(*homes, Club(), guards=FREE)
    club.become({"ann"})
    club.die()
    if leaves_first:
        club.become(set())
    club.club.refused["ann"] = "not now"
    assert club.run().rejected == 1
    club.club.refused.clear()
    club.become(set())
    club.run()
    assert club.club.members == set()


def test_entries_that_may_have_arrived_are_taken_away_where_they_are_no_longer_wanted(homes: Homes) -> None:
    tags = profile_change({"tags": ProfileField(to="tags", operation="append")})
    club = Following(*homes, Club(), payload=tags, guards=FREE)
    club.describe({"ann": {"tags": ["a"]}})
    club.run()
    for entries in (["a", "x"], ["a", "y"]):
        club.describe({"ann": {"tags": entries}})
        club.die()
    club.describe({"ann": {"tags": ["a"]}})
    club.run()
    assert club.club.profiles == {"ann": {"tags": ["a"]}}
    club.describe({"ann": {"tags": ["a", "z"], "plan": "pro"}})
    club.die()
    club.describe({})
    club.run()
    (leaving,) = club.club.told
    assert {(each.name, each.operation, str(each.value)) for each in leaving.changes} == {
        ("plan", "clear", "None"),
        ("tags", "remove", "['a', 'z']"),
    }


def test_the_same_change_in_doubt_goes_out_under_the_same_key(homes: Homes) -> None:
    keys: list[bytes] = []

    class Noting(Club):
        def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
            keys.extend(record.key for record in batch)
            return super().send(batch)

    tags = profile_change({"tags": ProfileField(to="tags", operation="append")})
    club = Following(*homes, Noting(), payload=tags, guards=FREE)
    for profiles in ({"ann": {"n": 1.0, "tags": ['"ü', "a"]}}, {"ann": {"n": None, "tags": ["a"]}}, {}):
        club.describe(profiles)
        club.die()
        club.die()
        club.run()
    assert [keys.count(key) for key in dict.fromkeys(keys)] == [3, 3, 3]


def test_a_full_resync_tells_the_whole_profile_also_where_a_change_is_in_doubt(homes: Homes) -> None:
    club = Following(*homes, Club(), payload=profile_change({}))
    club.describe({"ann": {"plan": "free", "seats": 1}})
    club.run()
    club.describe({"ann": {"plan": "free", "seats": 2}})
    club.die()
    club.club.profiles.clear()
    club.run(full=True)
    assert club.club.profiles == {"ann": {"plan": "free", "seats": 2}}


def test_only_whose_change_was_refused_or_is_pending_may_differ_from_the_source(homes: Homes) -> None:
    club = Following(*homes, Club(refused={"ann": "no", "bob": "no"}))
    club.become({"ann", "bob", "cleo"})
    club.run()
    with homes[1].write() as con:
        assert apart(con, club.sync.name, club.sync.question()).explained
        con.execute("delete from sync_rejections where sync = ? and identity = 'bob'", [club.sync.name])
        found = apart(con, club.sync.name, club.sync.question())
        assert (found.explained, found.numbers["missing"], found.numbers["unsettled"]) == (False, 2, 1)


def test_members_of_a_source_that_is_gone_are_not_explained(homes: Homes) -> None:
    club = Following(*homes, Club())
    with homes[1].read() as con:
        assert apart(con, club.sync.name, club.sync.question()).explained
    club.become({"ann"})
    club.run()
    club.sync.wanted = None
    with homes[1].read() as con:
        found = apart(con, club.sync.name, club.sync.question())
    assert (found.explained, found.numbers["baseline"]) == (False, 1)


def test_a_preview_shows_what_a_run_would_do_and_leaves_no_trace(homes: Homes) -> None:
    club = Following(*homes, Club(["guest"]), existing=lambda: iter(["guest"]), removes="all")
    club.become({"ann", "bob"})
    preview = club.sync.preview(samples=1)
    assert (preview.wanted, preview.held, preview.added, preview.removed) == (2, 1, 2, 1)
    assert [sample.change for sample in preview.samples] == [MemberChange("ann", True), MemberChange("guest", False)]
    with homes[1].read() as con:
        assert club.sync.name not in [known.sync for known in known_syncs(con)]
    assert club.run().sent == 3
    assert (club.sync.preview().unchanged, club.sync.preview(options=RunOptions(full=True)).again) == (2, 2)


def test_profiles_are_told_by_what_changed_and_nothing_to_tell_is_no_request(homes: Homes) -> None:
    club = Following(*homes, Club(), payload=profile_change({}), guards=FREE)
    club.describe({"ann": {"age": 7, "plan": "free"}, "bob": {"plan": "pro"}, "odd": "age: no number"})
    report = club.run()
    assert (report.added, report.rejected, report.held) == (2, 1, 2)
    club.describe({"ann": {"age": 8, "plan": "free"}, "bob": {}, "dan": {}})
    report = club.run()
    (change,) = club.club.told
    assert (change.identity, [(each.name, each.value) for each in change.changes]) == ("ann", [("age", 8)])
    assert (report.updated, report.unchanged, report.sent, report.held) == (1, 2, 1, 3)
    assert (club.run().unchanged, club.club.told) == (3, [])
    club.describe({"bob": {}, "dan": {}})
    club.run()
    assert club.club.profiles == {"bob": {"plan": "pro"}}


def test_a_change_of_a_profile_that_may_have_arrived_is_undone_where_it_is_no_longer_wanted(homes: Homes) -> None:
    club = Following(*homes, Club(), payload=profile_change({}))
    club.describe({"ann": {"plan": "free"}})
    club.run()
    club.describe({"ann": {"plan": "pro"}})
    club.club.dies_after = 0
    with pytest.raises(Killed):
        club.run()
    club.club.dies_after = 10**9
    club.describe({"ann": {"plan": "free"}})
    report = club.run()
    assert (report.sent, report.updated) == (1, 0)
    assert club.club.profiles == {"ann": {"plan": "free"}}


def test_the_history_of_a_sync_is_kept_until_it_is_forgotten(homes: Homes) -> None:
    club = Following(*homes, Club())
    at = datetime(2026, 1, 2, 3, tzinfo=UTC)
    club.become({"ann", "bob"})
    club.sync.run(matched=Matched(unmapped=4, ambiguous=3, placeholders=2, changed_at=at))
    club.become({"ann"})
    club.run()
    with homes[1].read() as con:
        history = [(run.held, run.added, run.removed) for run in sync_history(con, club.sync.name)]
        (last,) = [run for run in last_runs(con) if run["sync"] == club.sync.name]
        query = "select unmapped, ambiguous, placeholders, source_changed_at from sync_log.sync_runs where sync = ?"
        assert (4, 3, 2, at.replace(tzinfo=None)) in con.execute(query, [club.sync.name]).fetchall()
    assert history == [(2, 2, 0), (1, 0, 1)]
    assert (last["wanted"], last["unchanged"], last["unmapped"]) == (1, 1, 0)

    with homes[1].write() as con:
        assert (club.sync.name, 1) in [(known.sync, known.held) for known in known_syncs(con)]
        forget(con, club.sync.name)
        assert club.sync.name not in [known.sync for known in known_syncs(con)]
    assert club.club.members == {"ann"}
    club.run()
    assert club.told() == [("ann", True)]


@settings(max_examples=10)
@given(
    rounds=st.lists(
        st.tuples(
            st.sets(st.sampled_from("abcdef")),
            st.sampled_from(["stopped", "killed"]),
            st.integers(0, 4),
            st.sampled_from(["mirror", "add_only"]),
            st.sampled_from(["", *"abcdef"]),
            st.sampled_from([{}, {}, {"full": True}, {"only": "a"}, {"only": "e"}]),
        ),
        min_size=1,
        max_size=4,
    ),
    before=st.sets(st.sampled_from("efgh")),
)
def test_after_any_interruptions_a_whole_sync_makes_both_sides_equal(
    homes: Homes, rounds: list[tuple[set[str], str, int, Mode, str, dict[str, Any]]], before: set[str]
) -> None:
    club = Following(*homes, Club(before), guards=FREE, existing=lambda: iter(sorted(before)))
    for members, end, calls, mode, refused, options in rounds:
        club.become(members)
        club.sync.mode = mode
        club.club.refused = {refused: "not now"}
        club.club.calls_left, club.club.dies_after = (calls, 10**9) if end == "stopped" else (10**9, calls)
        try:
            club.run(**options)
        except (DeliveryStopped, Killed):
            assert not club.club.calls_left or club.club.dies_after < 0
    club.sync.mode = "mirror"
    club.club.refused.clear()
    club.club.calls_left = club.club.dies_after = 10**9
    report = club.run()
    assert club.club.members >= club.members
    assert club.club.members - club.members <= before
    assert before <= club.club.members
    assert (report.pending, report.held) == (0, len(club.members))
    assert (club.run().planned, club.club.told) == (0, [])
