"""Appends lines to files of this process, durably."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

from heap_integration.landing.commits import GroupCommit
from heap_integration.landing.segments import Names, create, seal, sync_data, sync_folder

log = logging.getLogger(__name__)

SEGMENT_BYTES = 32 * 1024 * 1024
SEGMENT_SECONDS = 0.5
SPARE_BYTES = 16 * 1024 * 1024


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
        # One thread does all that touches the disk, in order.
        self._disk = GroupCommit(self._write)
        self._names = Names()
        self._segment: _Segment | None = None

    @property
    def last_durable(self) -> float | None:
        """When a line was last made durable, on the monotonic clock."""
        return self._disk.last_durable

    async def append(self, line: bytes) -> None:
        """Append one line, without its newline, and return when it is on the disk.

        Raises:
            LandingClosed: the writer was closed.
            LandingUnavailable: the disk refuses; what was appended before is not touched.
        """
        await self._disk.append(line)

    def ready(self) -> str:
        """Return why no lines can be taken now: the disk has just refused, or is about to be full."""
        return self._disk.trouble() or _lack_of_space(self.folder)

    async def rotate(self) -> None:
        """Seal the current segment; the next line starts a new one."""
        await self._disk.run(self._seal)

    async def close(self) -> None:
        """Write what is pending and seal the segment. Closing again does nothing."""
        await self._disk.close(self._seal)

    def _write(self, lines: list[bytes]) -> None:
        segment = self._segment
        if segment is None:
            segment = self._segment = _Segment.create(self.folder, self._names)
            self._disk.run_after(self.segment_seconds, partial(self._seal, segment))
        lines.append(b"")
        try:
            segment.write(b"\n".join(lines))
        except OSError:
            self._segment = None
            segment.give_up()
            raise
        if segment.size >= self.segment_bytes:
            self._seal()

    def _seal(self, only: _Segment | None = None) -> None:
        segment = self._segment
        if segment is None or only not in {None, segment}:
            return
        self._segment = None
        segment.seal()


class _Segment:
    """A segment that this process writes; ``size`` bytes of it are on the disk."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.handle = handle
        self.size = 0

    @classmethod
    def create(cls, folder: Path, names: Names) -> _Segment:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        return cls(*create(folder, names.next(folder)))

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


def _lack_of_space(folder: Path) -> str:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir():
        return f"{place} is not a folder"
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    return "" if free >= SPARE_BYTES else f"only {free >> 20} MB are free in {place}"
