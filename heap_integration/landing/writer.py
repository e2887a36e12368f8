"""Appends lines durably, many of them with one sync."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from heap_integration.landing.segments import create, seal, sync_data, sync_folder

T = TypeVar("T")

log = logging.getLogger(__name__)

SEGMENT_BYTES = 8 * 1024 * 1024
SEGMENT_SECONDS = 1.0


class LandingClosed(Exception):
    """The writer takes nothing more."""


class LandingWriter:
    """Appends lines to segments of this process in ``folder``, for one event loop.

    Lines that arrive while the disk is busy share the next sync. A segment is sealed when it holds
    ``segment_bytes``, or ``segment_seconds`` after its first line.
    """

    def __init__(
        self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, segment_seconds: float = SEGMENT_SECONDS
    ) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.segment_seconds = segment_seconds
        self.last_durable: float | None = None
        """When a line was last made durable, on the monotonic clock."""
        # One thread does all that touches the disk, in order.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="landing")
        self._segment: _Segment | None = None
        self._pending: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._sealing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def append(self, line: bytes) -> None:
        """Append one line, without its newline, and return when it is on the disk.

        Raises:
            LandingClosed: the writer was closed.
            OSError: the disk refuses; the line is not kept, and what was appended before is not touched.
        """
        if self._closed:
            raise LandingClosed
        if b"\n" in line:
            raise ValueError("a landing line can't hold a newline")
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((line, durable))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_pending())
        await durable

    async def rotate(self) -> None:
        """Seal the current segment; the next line starts a new one."""
        await self._on_disk(self._seal)

    async def close(self) -> None:
        """Write what is pending and seal the segment. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        for task in self._sealing:
            task.cancel()
        if self._writing is not None:
            await self._writing
        await self.rotate()
        self._disk.shutdown()

    async def _write_pending(self) -> None:
        while self._pending:
            group, self._pending = self._pending, []
            data = b"".join(line + b"\n" for line, _ in group)
            failure: Exception | None = None
            try:
                if fresh := await self._on_disk(partial(self._write, data)):
                    self._seal_later(fresh)
            except Exception as error:
                # Whatever it is, it belongs to those who wait: nobody else looks at this task.
                failure = error
            for _, durable in group:
                if durable.cancelled():
                    continue
                if failure is None:
                    durable.set_result(None)
                else:
                    durable.set_exception(failure)
        self._writing = None

    def _write(self, data: bytes) -> _Segment | None:
        """Make ``data`` durable and return the segment if this was its first write and it goes on."""
        fresh = self._segment is None
        if self._segment is None:
            self._segment = _Segment.create(self.folder)
        segment = self._segment
        try:
            segment.write(data)
        except OSError:
            self._segment = None
            segment.give_up()
            raise
        self.last_durable = time.monotonic()
        if segment.size >= self.segment_bytes:
            self._seal()
            return None
        return segment if fresh else None

    def _seal(self, only: _Segment | None = None) -> None:
        segment = self._segment
        if segment is None or only not in {None, segment}:
            return
        self._segment = None
        segment.seal()

    def _seal_later(self, segment: _Segment) -> None:
        async def wait_and_seal() -> None:
            await asyncio.sleep(self.segment_seconds)
            await self._on_disk(partial(self._seal, segment))

        task = asyncio.create_task(wait_and_seal())
        self._sealing.add(task)
        task.add_done_callback(self._sealing.discard)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)


class _Segment:
    """A segment that this process writes; ``size`` bytes of it are on the disk."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.handle = handle
        self.size = 0

    @classmethod
    def create(cls, folder: Path) -> _Segment:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        return cls(*create(folder))

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.handle, rest) :]
        sync_data(self.handle)
        self.size += len(data)

    def give_up(self) -> None:
        """Keep what is durable after a write has failed: another one could follow half a line."""
        try:
            os.ftruncate(self.handle, self.size)
        except OSError:
            # Without its lock it is an orphan, and its torn end is cut off by whoever finds it.
            os.close(self.handle)
        else:
            self.seal()

    def seal(self) -> None:
        try:
            seal(self.path, self.handle)
        except OSError as error:
            log.warning("%s stays unsealed until it is read: %s", self.path, error)
