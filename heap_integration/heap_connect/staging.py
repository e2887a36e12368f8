"""A dump's tables made ready beside the warehouse, without any lock: typed, each key once, in Parquet."""

from __future__ import annotations

import io
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from heap_integration.events.sources.storage import InputFile, Watched
from heap_integration.heap.connect_dumps import DumpTable
from heap_integration.heap_connect.avro_pieces import PIECE_BYTES, BrokenFile, Piece, cut, unique
from heap_integration.heap_connect.columns import DUCKDB_TYPES, IDS, Kind, common, guessed, planned, reading
from heap_integration.warehouse.duck import WarehouseError, is_full
from heap_integration.warehouse.tables import quoted

if TYPE_CHECKING:
    import duckdb

_THREADS = 2
# fetched and cut ahead of what is being read
_AHEAD = 3
_BUFFER = 1 << 20
_UNREAD = "_hub_unread"
# what is read once isn't worth looking for values that repeat
_PARQUET = "format parquet, dictionary_size_limit 1"
_CHANGED = "last_modified"


class DumpError(ValueError):
    """A dump that can't be loaded; the message names the file or table, and nothing of the dump is in effect."""


@dataclass(frozen=True)
class StagedTable:
    """A table of a dump, ready to be applied.

    ``files`` are Parquet with exactly ``columns``, each key in one row. ``read`` is how many rows the dump has of it,
    ``rows`` how many are left; ``keyless`` rows have no key and are left out; ``unread`` have a time that can't be
    read and is empty, ``example`` shows one. ``bytes`` is the size of the dump's files.
    """

    table: DumpTable
    columns: Mapping[str, Kind]
    files: tuple[str, ...]
    rows: int
    read: int
    keyless: int
    unread: int
    example: str
    bytes: int
    typed: bool = True
    """Whether a file tells the columns' types; else they are guessed by their names."""

    @property
    def duplicates(self) -> int:
        """How many rows were left out for a later one with the same key."""
        return self.read - self.keyless - self.rows

    @property
    def relation(self) -> str:
        """The rows, for a statement of DuckDB's."""
        return _parquet(self.files)


@dataclass(frozen=True)
class _Part:
    """A piece as Parquet; ``columns`` are those that can hold values."""

    path: str
    columns: Mapping[str, Kind]
    rows: int
    unread: int
    example: str


class Staging:
    """A folder in which dumps are made ready, and a DuckDB of its own that does it.

    Half of ``memory_mb`` is that DuckDB's; what doesn't fit waits in the folder. ``times`` are the columns that hold
    times, as text or as a number. The folder is emptied at the beginning and removed at the end.
    """

    def __init__(self, folder: Path, memory_mb: int, times: Collection[str], *, piece_bytes: int = PIECE_BYTES) -> None:
        self._folder = folder
        self._memory_mb = memory_mb
        self._times = times
        self._piece_bytes = piece_bytes
        self._tables = 0

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        self._con = _opened(self._folder, self._memory_mb)
        return self

    def __exit__(self, *error: object) -> None:
        self.rest()
        shutil.rmtree(self._folder, ignore_errors=True)

    def rest(self) -> None:
        """Give back the memory; what was made ready stays."""
        self._con.close()

    def stage(self, table: DumpTable, files: Sequence[InputFile], progress: Callable[[int], None]) -> StagedTable:
        """Make a table ready; ``progress`` is told how many rows were read since it was told last.

        Raises:
            DumpError: a file is gone or broken, lacks the key, or has an id that is no number.
            StorageError, OSError: a file can't be fetched.
            WarehouseError: there is no room on the disk.
        """
        table = replace(table, columns=tuple(unique(table.columns)))
        self._tables += 1
        folder = self._folder / str(self._tables)
        folder.mkdir()
        parts: list[_Part] = []
        for part in self._parts(table, files, folder):
            parts.append(part)
            progress(part.rows)
        return self._finished(table, parts, folder, sum(file.size for file in files))

    def _parts(self, table: DumpTable, files: Sequence[InputFile], folder: Path) -> Iterator[_Part]:
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[Future[_Part]] = deque()
            try:
                for number, file in enumerate(files):
                    for piece in self._pieces(file, folder / f"{number:06}"):
                        if table.key not in {field.name for field in piece.fields}:
                            raise DumpError(f"{file.name} has no column {table.key}")
                        waiting.append(pool.submit(self._part, file.name, piece))
                        if len(waiting) > _AHEAD:
                            yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for each in waiting:
                    each.cancel()

    def _pieces(self, file: InputFile, folder: Path) -> Iterator[Piece]:
        folder.mkdir()
        try:
            stream = file.open()
        except FileNotFoundError as error:
            raise DumpError(f"{file.name} is gone") from error
        with stream as opened:
            watched = Watched(opened, file.name)
            try:
                yield from cut(io.BufferedReader(watched, _BUFFER), folder, self._piece_bytes)
            except BrokenFile as error:
                watched.check()
                raise DumpError(f"{file.name} is broken: {error}") from error

    def _part(self, name: str, piece: Piece) -> _Part:
        import duckdb

        path = str(piece.path.with_suffix(".parquet"))
        with self._con.cursor() as con:
            try:
                described = con.execute(f"describe {_avro(piece.path)}").fetchall()
                types = {column: kind for column, kind, *_ in described}
                rows, *_ = _one(con, f"copy ({self._selected(piece, types)}) to {_text(path)} ({_PARQUET})")
                unread, example = _one(con, f"select count({_UNREAD}), min({_UNREAD}) from {_parquet([path])}")
            except duckdb.Error as error:
                raise self._short_of_room(error) or DumpError(f"{name} is broken: {error}") from error
        # the reader ends at a block that it can't read, as if there were no more
        if rows != piece.rows:
            raise DumpError(f"{name} is broken: {rows:,} of {piece.rows:,} rows can be read")
        if example and example.partition("=")[0] in IDS:
            raise DumpError(f"{name} has an id that is no whole number: {example}")
        piece.path.unlink()
        named = IDS | set(self._times)
        known = [field.name for field in piece.fields if field.has_values or field.name in named]
        columns = {column: planned(column, types[column], self._times) for column in known}
        return _Part(path, columns, rows, unread, example or "")

    def _selected(self, piece: Piece, types: Mapping[str, str]) -> str:
        values: list[str] = []
        raw: list[str] = []
        losses: list[str] = []
        # what is wrong with an id comes first: it is told instead of anything else
        for field in sorted(piece.fields, key=lambda field: field.name not in IDS):
            name, (value, may_lose) = quoted(field.name), reading(field.name, types[field.name], self._times)
            values.append(f"{value} as {name}")
            if may_lose:
                given = f"_hub_raw_{len(raw)}"
                raw.append(f"cast({name} as varchar) as {given}")
                lost = f"{name} is null and {given} is not null and trim({given}) <> ''"
                losses.append(f"case when {lost} then {_text(field.name + '=')} || {given} end")
        unread = f"coalesce({', '.join(losses)})" if losses else "cast(null as varchar)"
        columns = ", ".join(quoted(field.name) for field in piece.fields)
        return f"select {columns}, {unread} as {_UNREAD} from (select {', '.join(values + raw)} {_avro(piece.path)})"

    def _finished(self, table: DumpTable, parts: list[_Part], folder: Path, size: int) -> StagedTable:
        import duckdb

        try:
            return self._once_each(table, parts, folder, size)
        except duckdb.Error as error:
            raise self._short_of_room(error) or DumpError(f"{table.name} can't be made ready: {error}") from error

    def _short_of_room(self, error: duckdb.Error) -> ValueError | None:
        """Return what to say where not the dump is at fault, but this machine."""
        import duckdb

        if isinstance(error, duckdb.OutOfMemoryException):
            return DumpError(
                f"{self._memory_mb} MB of memory are not enough for this dump: "
                "allow more by warehouse_memory_mb in the YAML"
            )
        return WarehouseError(f"{self._folder}: there is no more room on the disk") if is_full(error) else None

    def _once_each(self, table: DumpTable, parts: list[_Part], folder: Path, size: int) -> StagedTable:
        if not parts:
            return self._empty(table, folder)
        columns = _columns(parts, table.columns)
        read = sum(part.rows for part in parts)
        files = tuple(part.path for part in parts)
        key, rows_of = quoted(table.key), _parquet(files, by_name=True)
        distinct, keyed = _one(
            self._con,
            f"select count(*), coalesce(sum(n), 0) from"
            f" (select count(*) as n from {rows_of} where {key} is not null group by {key})",
        )
        if distinct < read or any(part.columns != parts[0].columns for part in parts):
            files = (self._rewritten(table, parts, columns, folder, distinct < keyed),)
        return StagedTable(
            table=table,
            columns=columns,
            files=files,
            rows=distinct,
            read=read,
            keyless=read - keyed,
            unread=sum(part.unread for part in parts),
            example=next((part.example for part in parts if part.example), ""),
            bytes=size,
        )

    def _empty(self, table: DumpTable, folder: Path) -> StagedTable:
        columns = {name: guessed(name, self._times) for name in (table.key, *table.columns)}
        path = str(folder / "rows.parquet")
        values = [f"cast(null as {DUCKDB_TYPES[kind]}) as {quoted(name)}" for name, kind in columns.items()]
        self._con.execute(f"copy (select {', '.join(values)} where false) to {_text(path)} ({_PARQUET})")
        return StagedTable(table, columns, (path,), 0, 0, 0, 0, "", 0, typed=False)

    def _rewritten(
        self, table: DumpTable, parts: list[_Part], columns: Mapping[str, Kind], folder: Path, has_duplicates: bool
    ) -> str:
        """Write all rows with a key again, in the same columns, and of each key the newest."""
        path, key = str(folder / "rows.parquet"), quoted(table.key)
        everything = " union all ".join(_same(columns, alike) for alike in _alike(parts))
        chosen = f"select * from ({everything}) where {key} is not null"
        if has_duplicates:
            # Between the files of a dump there is no order, but a user's row says when it changed.
            changed = f"{_CHANGED} desc nulls last, " if columns.get(_CHANGED) == "timestamp" else ""
            self._con.execute(
                f"create or replace temp table surpassed as select _hub_file, _hub_row from ("
                f"select _hub_file, _hub_row, row_number() over"
                f" (partition by {key} order by {changed}_hub_file desc, _hub_row desc) as n"
                f" from ({everything}) semi join"
                f" (select {key} from ({everything}) group by {key} having count(*) > 1) using ({key})) where n > 1"
            )
            chosen = f"{chosen} and (_hub_file, _hub_row) not in (from surpassed)"
        names = ", ".join(map(quoted, columns))
        self._con.execute(f"copy (select {names} from ({chosen})) to {_text(path)} ({_PARQUET})")
        return path


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    return con.execute(sql).fetchone() or ()


def _columns(parts: Sequence[_Part], order: Sequence[str]) -> dict[str, Kind]:
    """Return the columns of all parts, in the manifest's order, those that it doesn't know last.

    What differs in case alone between two files is one column.
    """
    found: dict[str, list[Kind]] = {}
    spelt: dict[str, str] = {}
    for part in parts:
        for name, kind in part.columns.items():
            found.setdefault(spelt.setdefault(name.casefold(), name), []).append(kind)
    places = {name.casefold(): place for place, name in enumerate(order)}
    names = sorted(found, key=lambda name: places.get(name.casefold(), len(places)))
    return {name: common(found[name]) for name in names}


def _alike(parts: Sequence[_Part]) -> list[list[_Part]]:
    groups: dict[tuple[tuple[str, Kind], ...], list[_Part]] = {}
    for part in parts:
        groups.setdefault(tuple(sorted(part.columns.items())), []).append(part)
    return list(groups.values())


def _same(columns: Mapping[str, Kind], parts: Sequence[_Part]) -> str:
    """Return SQL for all columns of parts that have the same ones, and where each row stands."""
    there = {name.casefold() for name in parts[0].columns}
    values = [
        f"cast({quoted(name) if name.casefold() in there else 'null'} as {DUCKDB_TYPES[kind]}) as {quoted(name)}"
        for name, kind in columns.items()
    ]
    files = ", ".join(_text(part.path) for part in parts)
    rows = f"read_parquet([{files}], filename = '_hub_file', file_row_number = true)"
    return f"select {', '.join(values)}, _hub_file, file_row_number as _hub_row from {rows}"


def _parquet(files: Sequence[str], *, by_name: bool = False) -> str:
    return f"read_parquet([{', '.join(map(_text, files))}], union_by_name = {str(by_name).lower()})"


def _avro(path: Path) -> str:
    return f"from read_avro({_text(str(path))})"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _opened(folder: Path, memory_mb: int) -> duckdb.DuckDBPyConnection:
    import duckdb

    # each piece is read by a thread of ours: threads of DuckDB's beside them cost a half more and bring nothing
    # What is read beside it, and what a piece takes while it is decoded, doesn't count as its memory.
    con = duckdb.connect(config={"threads": 1, "memory_limit": f"{memory_mb // 2}MB"})
    con.execute(f"set timezone = 'UTC'; set temp_directory = {_text(str(folder / 'waiting'))}")
    con.execute(f"load {_text(str(_avro_reader()))}")
    return con


@lru_cache
def _avro_reader() -> Path:
    """Return DuckDB's reader for Avro, which comes as a package: it is fetched from nowhere when it is needed."""
    package = find_spec("duckdb_extension_avro")
    if package is None or package.origin is None:
        raise DumpError("the package duckdb-extension-avro is not installed: pip install heap-integration brings it")
    return next(Path(package.origin).parent.rglob("avro.duckdb_extension"))
