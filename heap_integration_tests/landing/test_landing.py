"""Landed lines are on the disk when ``append`` returns, whole, and in sealed segments soon after."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from heap_integration.landing import FolderArrivals, LandingClosed, LandingUnavailable, LandingWriter
from heap_integration.landing import writer as writer_module
from heap_integration.landing.commits import GroupCommit


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine to its end."""
    asyncio.run(work)


def waiting(folder: Path) -> list[str]:
    """Return the names of all sealed segments, oldest first."""
    return [segment.name for segment in FolderArrivals(folder).waiting()]


def lines(folder: Path) -> list[bytes]:
    """Return the lines of all sealed segments, oldest first."""
    found = []
    for segment in FolderArrivals(folder).waiting():
        with segment.open() as file:
            found += file.read().splitlines()
    return found


def test_concurrent_appends_share_a_segment_and_keep_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "made/when/needed"
    sent = [b'{"n":%d}' % number for number in range(500)]

    async def land() -> None:
        writer = LandingWriter(folder)
        await asyncio.gather(*map(writer.append, sent))
        assert writer.last_durable is not None
        (segment,) = folder.iterdir()
        assert segment.suffix == ".open"
        assert stat.S_IMODE(segment.stat().st_mode) == 0o600
        await writer.close()
        await writer.close()
        with pytest.raises(LandingClosed):
            await writer.append(b"late")

    run(land())
    assert len(waiting(folder)) == 1
    assert lines(folder) == sent


def test_a_line_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    async def land() -> None:
        writer = LandingWriter(tmp_path)
        for number in range(20):
            await writer.append(b"%d" % number)
            (segment,) = tmp_path.iterdir()
            assert segment.read_bytes().endswith(b"%d\n" % number)
        await writer.close()

    run(land())


def test_append_returns_after_the_disk_has_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    confirmed = threading.Event()
    syncs: list[int] = []

    def slow_sync(handle: int) -> None:
        assert confirmed.wait(10)
        syncs.append(handle)
        os.fsync(handle)

    monkeypatch.setattr(writer_module, "sync_data", slow_sync)

    async def land() -> None:
        writer = LandingWriter(tmp_path)
        first = asyncio.create_task(writer.append(b"0"))
        await asyncio.sleep(0.1)
        rest = [asyncio.create_task(writer.append(b"%d" % number)) for number in range(1, 50)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in (first, *rest))
        confirmed.set()
        await asyncio.gather(first, *rest)
        await writer.close()

    run(land())
    assert len(syncs) == 2
    assert lines(tmp_path) == [b"%d" % number for number in range(50)]


def test_a_segment_is_sealed_by_size_by_age_and_by_hand(tmp_path: Path) -> None:
    async def land() -> None:
        writer = LandingWriter(tmp_path, segment_bytes=100, segment_seconds=0.1)
        await writer.append(b"x" * 100)
        assert len(waiting(tmp_path)) == 1
        await writer.append(b"old")
        assert len(waiting(tmp_path)) == 1
        await asyncio.sleep(0.5)
        assert len(waiting(tmp_path)) == 2
        await writer.append(b"by hand")
        await writer.rotate()
        await writer.rotate()
        await writer.close()

    run(land())
    assert lines(tmp_path) == [b"x" * 100, b"old", b"by hand"]


def test_what_a_killed_writer_leaves_is_cut_to_whole_lines_and_sealed(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys, pathlib; from heap_integration.landing import LandingWriter\n"
        "async def land():\n"
        "  await LandingWriter(pathlib.Path(sys.argv[1]), segment_seconds=60).append(b'whole')\n"
        "  print('landed', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(land())"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"landed\n"
    (segment,) = tmp_path.iterdir()
    assert waiting(tmp_path) == []
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    with segment.open("ab") as torn:
        torn.write(b"t" * 200_000)
    assert lines(tmp_path) == [b"whole"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".ndjson"]


def test_whether_something_waits_is_known_without_sealing_anything(tmp_path: Path) -> None:
    arrivals = FolderArrivals(tmp_path / "landing")
    assert not arrivals.has_waiting()

    async def land() -> None:
        writer = LandingWriter(arrivals.folder)
        await writer.append(b"line")
        assert not arrivals.has_waiting()
        await writer.rotate()
        assert arrivals.has_waiting()
        await writer.close()

    run(land())
    (segment,) = arrivals.waiting()
    segment.remove()
    segment.remove()
    assert not arrivals.has_waiting()
    (arrivals.folder / "0001-1-a.open").write_bytes(b"left by a dead writer\n")
    assert arrivals.has_waiting()
    assert [path.suffix for path in arrivals.folder.iterdir()] == [".open"]


def test_many_small_segments_are_gathered_into_one_and_the_oldest_stays(tmp_path: Path) -> None:
    arrivals = FolderArrivals(tmp_path)
    sent = [b"%d" % number for number in range(12)]

    async def land() -> None:
        writer = LandingWriter(tmp_path)
        for line in sent:
            await writer.append(line)
            await writer.rotate()
        await writer.append(b"still growing")
        arrivals.gather()
        await writer.close()

    run(land())
    oldest, gathered, newest = arrivals.waiting()
    assert lines(tmp_path) == [*sent, b"still growing"]
    with oldest.open() as file:
        assert file.read() == b"0\n"
    arrivals.gather()
    assert [segment.name for segment in arrivals.waiting()] == [oldest.name, gathered.name, newest.name]
    for segment in (gathered, gathered, oldest, newest):
        segment.remove()
    assert list(tmp_path.iterdir()) == []


def test_segments_that_cannot_be_gathered_are_loaded_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(12):
        (tmp_path / f"{number:04d}-1-a.ndjson").write_bytes(b"%d\n" % number)
    (tmp_path / "0001-1-a.gathering").write_text("stands in the way")
    arrivals = FolderArrivals(tmp_path)
    arrivals.gather()
    assert "not put together" in caplog.text
    assert lines(tmp_path) == [b"%d" % number for number in range(12)]


def test_a_gathering_that_was_broken_off_is_finished(tmp_path: Path) -> None:
    arrivals = FolderArrivals(tmp_path)
    begun = tmp_path / "0001-1-a.gathering"
    begun.mkdir()
    (begun / "0001-1-a.ndjson").write_bytes(b"1\n")
    (tmp_path / "0002-1-a.ndjson").write_bytes(b"2\n")
    assert arrivals.has_waiting()
    assert lines(tmp_path) == [b"2"]
    arrivals.gather()
    assert lines(tmp_path) == [b"1", b"2"]


def test_a_clock_that_is_put_back_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    an_hour_ago = time.time_ns() - 3600 * 10**9

    async def land(*sent: bytes) -> None:
        writer = LandingWriter(tmp_path)
        for line in sent:
            await writer.append(line)
            await writer.rotate()
        await writer.close()

    run(land(b"1", b"2"))
    monkeypatch.setattr(time, "time_ns", lambda: an_hour_ago)
    run(land(b"3", b"4", b"5"))
    assert lines(tmp_path) == [b"1", b"2", b"3", b"4", b"5"]
    assert len(set(waiting(tmp_path))) == 5


def test_what_takes_too_long_is_refused_and_so_is_all_until_it_is_over() -> None:
    released = threading.Event()
    committed: list[bytes] = []

    def commit(group: list[bytes]) -> None:
        assert released.wait(10)
        committed.extend(group)

    async def land() -> None:
        commits = GroupCommit(commit, patience=0.2)
        first = asyncio.create_task(commits.append(b"first"))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(commits.append(b"second"))
        for task in (first, second):
            with pytest.raises(LandingUnavailable, match="nothing has become durable"):
                await task
        with pytest.raises(LandingUnavailable):
            await commits.append(b"third")
        assert "nothing has become durable" in commits.trouble()
        released.set()
        while committed != [b"first"]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await commits.append(b"fourth")
        assert commits.trouble() == ""
        await commits.close()

    run(land())
    # The first may have become durable after all; the second and third had not been begun.
    assert committed == [b"first", b"fourth"]


def test_a_line_whose_sender_has_gone_before_its_turn_is_left_out(tmp_path: Path) -> None:
    async def land() -> None:
        writer = LandingWriter(tmp_path)
        gone = asyncio.create_task(writer.append(b"gone"))
        stays = asyncio.create_task(writer.append(b"stays"))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        await writer.close()

    run(land())
    assert lines(tmp_path) == [b"stays"]


def test_nothing_is_left_of_a_segment_without_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "0001-1-a.open").write_bytes(b"")
    (tmp_path / "0002-1-b.open").write_bytes(b'{"torn":')
    abandoned, young = tmp_path / "0003-1-c.open.new", tmp_path / "0004-1-d.open.new"
    abandoned.touch()
    young.touch()
    an_hour_ago = time.time() - 3600
    os.utime(abandoned, (an_hour_ago, an_hour_ago))
    assert waiting(tmp_path) == []
    assert list(tmp_path.iterdir()) == [young]
    assert waiting(tmp_path / "missing") == []


def test_a_segment_that_somebody_still_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "0001-1-a.open"
    with path.open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        writer.write(b"whole\n")
        writer.flush()
        assert waiting(tmp_path) == []
    assert lines(tmp_path) == [b"whole"]


def test_a_full_disk_fails_the_line_and_spares_the_others(tmp_path: Path) -> None:
    async def land() -> None:
        writer = LandingWriter(tmp_path)
        await writer.append(b"before")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(LandingUnavailable, match="File too large"):
                await writer.append(b"x" * 2000)
            assert "File too large" in writer.ready()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)
        await writer.append(b"after")
        assert writer.ready() == ""
        await writer.close()

    run(land())
    assert lines(tmp_path) == [b"before", b"after"]


def test_a_writer_that_has_no_place_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LandingWriter(tmp_path / "made/when/needed").ready() == ""
    (tmp_path / "file").touch()
    assert "is not a folder" in LandingWriter(tmp_path / "file/landing").ready()
    monkeypatch.setattr(writer_module, "SPARE_BYTES", 1 << 60)
    assert "MB are free" in LandingWriter(tmp_path).ready()


def test_a_line_with_a_newline_is_refused(tmp_path: Path) -> None:
    async def land() -> None:
        writer = LandingWriter(tmp_path)
        with pytest.raises(ValueError, match="newline"):
            await writer.append(b"a\nb")
        await writer.close()

    run(land())
    assert list(tmp_path.iterdir()) == []
