"""A landing segment on disk, from its creation to its sealing.

A segment has one of three names: ``.open.new`` until its writer holds the lock on it, ``.open`` as
long as it grows, ``.ndjson`` once it is sealed and will never change again. The lock (flock) tells
the living writer from a dead one, because the kernel takes it away at death: a file that already was
``.open`` before it was locked could be sealed in between.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path

NEW = ".open.new"
OPEN = ".open"
SEALED = ".ndjson"
TAIL_BYTES = 64 * 1024
LITTER_SECONDS = 60.0

# Only what is needed to read the file back has to be on the disk, not its times; macOS has no such call.
sync_data = getattr(os, "fdatasync", os.fsync)


class Names:
    """The names of the segments that one process makes in a folder, in the order of their making."""

    def __init__(self) -> None:
        self._last: int | None = None

    def next(self, folder: Path) -> str:
        """Return a new name, behind all that this process has given or found at its start.

        A clock that was put back must not place new lines before old ones.
        """
        if self._last is None:
            self._last = max(map(_moment, os.listdir(folder)), default=0)
        self._last = max(time.time_ns(), self._last + 1)
        # Nanoseconds fill 19 digits until the year 2286.
        return f"{self._last:019d}-{os.getpid()}-{secrets.token_hex(4)}"


def waiting(folder: Path) -> list[Path]:
    """Seal what dead writers have left and return all sealed segments, oldest first.

    Whoever has taken a segment in removes it. A sealed segment holds whole lines and at least one;
    after a power cut its last lines, which nobody was told are safe, may be damaged.
    """
    if not folder.is_dir():
        return []
    for path in folder.iterdir():
        if path.name.endswith(OPEN):
            _seal_orphan(path)
        elif path.name.endswith(NEW):
            _remove_litter(path)
    return sorted(folder.glob(f"*{SEALED}"))


def is_orphan(path: Path) -> bool:
    """Return whether a segment's writer has died."""
    handle = _locked(path)
    if handle is None:
        return False
    os.close(handle)
    return True


def create(folder: Path, name: str) -> tuple[Path, int]:
    """Create an empty segment and return its path and the locked handle."""
    new, path = folder / (name + NEW), folder / (name + OPEN)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(path)
        sync_folder(folder)
    except OSError:
        new.unlink(missing_ok=True)
        os.close(handle)
        raise
    return path, handle


def seal(path: Path, handle: int) -> Path | None:
    """Seal a segment whose lock ``handle`` holds, and close it; an empty one is removed.

    Returns the sealed segment, or ``None`` where nothing is left.
    """
    try:
        if os.fstat(handle).st_size == 0:
            path.unlink()
            return None
        sealed = path.with_suffix(SEALED)
        path.rename(sealed)
        sync_folder(path.parent)
        return sealed
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal_orphan(path: Path) -> None:
    handle = _locked(path)
    if handle is None:
        return
    try:
        os.ftruncate(handle, _end_of_last_line(handle))
        os.fsync(handle)
    except OSError:
        os.close(handle)
        raise
    seal(path, handle)


def _remove_litter(path: Path) -> None:
    """Remove a segment whose writer died before it wrote; a young one may be about to be locked."""
    handle = _locked(path)
    if handle is None:
        return
    if time.time() - os.fstat(handle).st_mtime > LITTER_SECONDS:
        path.unlink()
    os.close(handle)


def _locked(path: Path) -> int | None:
    """Open and lock a file that nobody else holds, and that still has this name."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def _end_of_last_line(handle: int) -> int:
    end = os.fstat(handle).st_size
    while end > 0:
        start = max(0, end - TAIL_BYTES)
        newline = os.pread(handle, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _moment(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isdecimal() else 0
