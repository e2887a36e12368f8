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

from heap_integration.landing import LandingClosed, LandingWriter, waiting
from heap_integration.landing import writer as writer_module


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine to its end."""
    asyncio.run(work)


def lines(folder: Path) -> list[bytes]:
    """Return the lines of all sealed segments, oldest first."""
    return [line for path in waiting(folder) for line in path.read_bytes().splitlines()]


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
            with pytest.raises(OSError, match="File too large"):
                await writer.append(b"x" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)
        await writer.append(b"after")
        await writer.close()

    run(land())
    assert lines(tmp_path) == [b"before", b"after"]


def test_a_line_with_a_newline_is_refused(tmp_path: Path) -> None:
    async def land() -> None:
        writer = LandingWriter(tmp_path)
        with pytest.raises(ValueError, match="newline"):
            await writer.append(b"a\nb")
        await writer.close()

    run(land())
    assert list(tmp_path.iterdir()) == []
