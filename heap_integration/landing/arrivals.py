"""The segments in a folder, as the loader takes them in."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from heap_integration.landing.interface import Segment
from heap_integration.landing.joining import BUFFER_BYTES, joined
from heap_integration.landing.segments import OPEN, SEALED, is_orphan, sync_folder, waiting

log = logging.getLogger(__name__)

GATHERING = ".gathering"
GATHERED = ".gathered"
# To load a segment costs as much as to load a thousand lines: half a second's worth each is dear after an hour.
FEW = 8


class FolderArrivals:
    """The segments that writers leave in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has_waiting(self) -> bool:
        """Return whether there is a sealed segment, or one that a dead writer has left."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return False
        return any(
            name.endswith((SEALED, GATHERED, GATHERING)) or (name.endswith(OPEN) and is_orphan(self.folder / name))
            for name in names
        )

    def gather(self) -> None:
        """Put all sealed segments but the oldest into one, where there are many; for the loader alone.

        Each file is at one of the two places at any time, so that this can be broken off.
        """
        try:
            self._gather()
        except OSError as error:
            # A full disk, most likely: what is gathered already is found next time, the rest stays where it is.
            log.warning("small segments are not put together: %s", error)

    def _gather(self) -> None:
        for path in self.folder.glob(f"*{GATHERING}"):
            self._close(path)
        sealed = waiting(self.folder)
        if len(sealed) <= FEW:
            return
        # The oldest may have been loaded in part, under its own name.
        together = sealed[1:]
        gathering = together[0].with_suffix(GATHERING)
        gathering.mkdir(mode=0o700)
        for path in together:
            path.rename(gathering / path.name)
        self._close(gathering)

    def waiting(self) -> list[Segment]:
        """Return all sealed segments, oldest first, among them what dead writers have left."""
        single = [FolderSegment(path) for path in waiting(self.folder)]
        gathered = [GatheredSegment(path) for path in self.folder.glob(f"*{GATHERED}")]
        return sorted([*single, *gathered], key=attrgetter("name"))

    def _close(self, gathering: Path) -> None:
        sync_folder(gathering)
        gathering.rename(gathering.with_suffix(GATHERED))
        sync_folder(self.folder)


@dataclass(frozen=True)
class FolderSegment:
    """A sealed segment in a file."""

    path: Path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def open(self) -> BinaryIO:
        """Open the file."""
        return self.path.open("rb")

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class GatheredSegment:
    """Sealed segments in a folder of their own, which count as one."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def open(self) -> BinaryIO:
        """Return the content of all files, oldest first."""
        return joined(_content(sorted(self.path.iterdir())))

    def remove(self) -> None:
        """Remove the folder."""
        if self.path.exists():
            for path in self.path.iterdir():
                path.unlink()
            self.path.rmdir()


def _content(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(BUFFER_BYTES):
                yield piece
