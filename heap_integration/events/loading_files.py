"""Brings the files of a folder or of object storage into the warehouse, each version of each file once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from heap_integration.events.mapping import Mapping, MappingError
from heap_integration.events.pieces import Progress, add_piece, rules_of, under
from heap_integration.events.sources.files import Chunk, RowFormat, fingerprints, read_input
from heap_integration.events.sources.storage import InputFile, StorageError, Unreachable, list_files
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.duck import PACKED_ROWS
from heap_integration.warehouse.events import Loaded
from heap_integration.warehouse.inputs import (
    FileNote,
    Found,
    WaitingFile,
    finish_inputs,
    note_files,
    origins_of,
    reached_lines,
)
from heap_integration.warehouse.inputs import waiting_files as waiting_in

if TYPE_CHECKING:
    import duckdb

_AT_ONCE = 200
_NAMED = 5


def load_files(
    warehouse: Warehouse,
    source: str,
    pattern: str,
    mapping: Mapping | None,
    row_format: RowFormat = "segment",
    options: AnyMapping[str, Any] | None = None,
    progress: Progress = lambda _: None,
) -> Loaded:
    """Load what isn't in the warehouse yet of the files that ``pattern`` names (see ``list_files``).

    A file whose stamp is known is neither read nor hashed again. A local one that has only grown is read from
    its last line on; one that has changed is read whole, its known events count as duplicates, and it is kept
    as changed (see ``changed_files``). The events bear ``source``, whatever source they name themselves. A
    file that can't be read, or that the mapping doesn't fit, keeps no other one waiting.

    Raises:
        StorageError: the files can't be listed; or, after all others were loaded, some can't be read.
        MappingError: after all others were loaded: a file lacks a column of the mapping, or needs a mapping.
    """
    files, rules = list_files(pattern, options), rules_of(mapping, row_format)
    waiting = _waiting(warehouse, source, rules, files)
    pieces = _Pieces(warehouse, source, rules, progress)
    problems: list[MappingError | Unreachable] = []
    for first in range(0, len(waiting), _AT_ONCE):
        versions = _versions(files, waiting[first : first + _AT_ONCE], rules, problems)
        for version in pieces.unread(versions):
            try:
                for chunk in _chunks(version, mapping, row_format):
                    pieces.add(version, under(source, chunk))
                    del chunk
            except FileNotFoundError:
                # gone since it was listed
                continue
            except (MappingError, Unreachable) as problem:
                problems.append(problem)
            else:
                pieces.finish(version)
    pieces.write()
    if problems:
        raise _all_of(problems)
    return pieces.total


def waiting_files(
    warehouse: Warehouse,
    source: str,
    pattern: str,
    mapping: Mapping | None,
    row_format: RowFormat = "segment",
    options: AnyMapping[str, Any] | None = None,
) -> list[str]:
    """Return the names of the files that aren't wholly loaded, or bear another stamp: a listing and one query.

    Raises:
        StorageError: the files can't be listed.
    """
    files = list_files(pattern, options)
    return [files[each.place].name for each in _waiting(warehouse, source, rules_of(mapping, row_format), files)]


def _waiting(warehouse: Warehouse, source: str, rules: str, files: Sequence[InputFile]) -> list[WaitingFile]:
    with warehouse.read() as con:
        return waiting_in(con, source, rules, [(file.name, file.stamp) for file in files])


@dataclass(frozen=True)
class _Version:
    """A file as it is now: what is in it, the line after which that is new, and what it is beside earlier ones."""

    file: InputFile
    content: str
    mark: str
    after_line: int
    found: Found

    @property
    def origin(self) -> str:
        return self.file.name if self.file.filesystem else PurePath(self.file.name).name


def _versions(
    files: Sequence[InputFile],
    waiting: Iterable[WaitingFile],
    rules: str,
    problems: list[MappingError | Unreachable],
) -> list[_Version]:
    versions = []
    for each in waiting:
        file = files[each.place]
        try:
            content, after_line, found = _compared(file, each)
        except FileNotFoundError:
            # gone since it was listed
            continue
        except OSError as error:
            problems.append(Unreachable(f"{file.name} can't be read: {error.strerror or error}"))
            continue
        versions.append(_Version(file, content, f"{content}-{rules}", after_line, found))
    return versions


def _compared(file: InputFile, waiting: WaitingFile) -> tuple[str, int, Found]:
    """Return what is in a file, after which line it is new, and what it is beside earlier versions."""
    if waiting.content is not None:
        return waiting.content, waiting.after_line, waiting.found
    otherwise: Found = "changed" if waiting.known_name else "new"
    if file.content:
        return file.content, 0, otherwise
    latest = waiting.latest
    with file.open() as stream:
        content, beginning = fingerprints(stream, latest.size if latest else 0)
    if latest and file.size > latest.size and beginning == latest.content:
        # the last line may have been read while it was half written
        return content, max(0, latest.last_line - 1), "grown"
    return content, 0, otherwise


def _chunks(version: _Version, mapping: Mapping | None, row_format: RowFormat) -> Iterator[Chunk]:
    with version.file.open() as stream:
        yield from read_input(
            stream,
            version.file.name,
            mapping,
            received_at=datetime.now(UTC),
            after_line=version.after_line,
            chunk_rows=PACKED_ROWS,
            row_format=row_format,
        )


class _Pieces:
    """Writes many small pieces in one transaction, which costs as much for one of them as for a large one."""

    def __init__(self, warehouse: Warehouse, source: str, rules: str, progress: Progress) -> None:
        self.total = Loaded()
        self._warehouse = warehouse
        self._source = source
        self._rules = rules
        self._progress = progress
        self._gathered: list[tuple[_Version, Chunk | None]] = []
        self._rows = 0
        # by mark: where reading has come to, and whether that is the end
        self._last_lines: dict[str, int] = {}
        self._finished: set[str] = set()
        self._noted: set[str] = set()

    def unread(self, versions: Sequence[_Version]) -> Iterator[_Version]:
        """Yield what there is to read, from the line on where an earlier load stopped."""
        with self._warehouse.read() as con:
            reached = reached_lines(con, [version.mark for version in versions])
        for version in versions:
            done = reached.get(version.mark, 0)
            if done is None or version.mark in self._finished:
                self._gather(replace(version, found="known"), None)
                continue
            after_line = max(version.after_line, done, self._last_lines.get(version.mark, 0))
            self._last_lines[version.mark] = after_line
            yield replace(version, after_line=after_line)

    def add(self, version: _Version, chunk: Chunk) -> None:
        """Take a piece of a file."""
        self._last_lines[version.mark] = chunk.last_line
        self._gather(version, chunk)

    def finish(self, version: _Version) -> None:
        """Take the end of a file."""
        self._finished.add(version.mark)
        self._gather(version, None)

    def write(self) -> None:
        """Write what was taken."""
        if not self._gathered:
            return
        read = {version.mark: version.origin for version, _ in self._gathered if version.found != "known"}
        ends = [version.mark for version, chunk in self._gathered if chunk is None and version.mark in read]
        with self._warehouse.write() as con:
            self._note(con)
            origins = origins_of(con, read)
            for version, chunk in self._gathered:
                if chunk is not None:
                    self.total += add_piece(con, chunk, origins[version.mark], version.mark)
            if ends:
                finish_inputs(con, [(origins[mark], mark, self._last_lines[mark]) for mark in ends])
        self._gathered.clear()
        self._rows = 0
        self._progress(self.total)

    def _gather(self, version: _Version, chunk: Chunk | None) -> None:
        self._gathered.append((version, chunk))
        self._rows += chunk.lines if chunk else 0
        if self._rows >= PACKED_ROWS // 2 or len(self._gathered) >= _AT_ONCE:
            self.write()

    def _note(self, con: duckdb.DuckDBPyConnection) -> None:
        new = {version.file.name: version for version, _ in self._gathered if version.file.name not in self._noted}
        self._noted |= new.keys()
        notes = [
            FileNote(
                name,
                version.file.stamp,
                version.file.size,
                version.content,
                version.mark,
                version.after_line,
                version.found,
            )
            for name, version in new.items()
        ]
        if notes:
            note_files(con, self._source, self._rules, notes)


def _all_of(problems: Sequence[MappingError | Unreachable]) -> MappingError | StorageError:
    shown = "; ".join(str(problem) for problem in problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED:,} files more" if len(problems) > _NAMED else ""
    wrong = any(isinstance(problem, MappingError) for problem in problems)
    return MappingError(shown + more) if wrong else StorageError(shown + more)
