"""The embedded warehouse: one DuckDB file behind an advisory lock."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from heap_integration.warehouse.ddl import TABLE_NAMES, TABLES

if TYPE_CHECKING:
    import duckdb

SCHEME = "duckdb:///"
# How many rows DuckDB packs together. A load of as many is written once and as it is; smaller ones are
# packed again when the next one comes, and larger ones cost memory.
PACKED_ROWS = 40_960
# What DuckDB would take for itself is most of the machine's memory and all of its cores. The hub's own
# statements are short: a second thread doubles what they cost and makes hardly one of them faster.
CONFIG: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "64MB", "threads": 1}
# What a piece of a load or of a delivery needs is enough for nearly everything. Whole segments need more, and what
# doesn't fit waits in files beside the warehouse.
AMPLE_MB = 600
AMPLE_THREADS = 2
WAITING = "waiting-"
# What DuckDB's messages hold, whose types tell neither apart.
FULL = ("No space left on device", "File too large", "Disk quota exceeded")
DAMAGED = ("Corrupt", "checksum")


class WarehouseError(ValueError):
    """The warehouse can't be opened or used: its address or file is wrong, another program holds it, room is short."""


class Warehouse:
    """Short connections to one DuckDB file, shared by several processes.

    DuckDB admits one writing process or many reading ones and fails everybody else at once. An
    advisory lock makes them wait instead: shared for readers, exclusive for writers, and given back
    by the kernel when a process dies. A connection is held for one statement or one transaction,
    never while something is being sent.

    ``ample_mb`` is how much memory an ample connection may take. ``holds_own_tables`` is false for a file that is
    somebody else's, such as the target of an export: the hub's own tables aren't made in it.

    Raises:
        WarehouseError: the address isn't ``duckdb:///path``; or later, the file can't be opened, read or written, or
            memory or the disk is short.
    """

    def __init__(self, url: str, ample_mb: int = AMPLE_MB, *, holds_own_tables: bool = True) -> None:
        if not url.startswith(SCHEME) or len(url) == len(SCHEME):
            raise WarehouseError(f"warehouse {url!r} is not supported: allowed is duckdb:///path/to/file.duckdb")
        self.url = url
        self.path = Path(url.removeprefix(SCHEME))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.ample_mb = ample_mb
        self._holds_own_tables = holds_own_tables
        self._has_tables = not holds_own_tables

    @contextmanager
    def read(self, *, ample: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a read-only connection; the tables exist. ``ample`` is for statements about whole segments.

        Such a connection takes more memory, a second thread, and room on the disk.
        """
        if not self._is_complete():
            with self.write():
                pass
        with (
            self._locked(fcntl.LOCK_SH),
            closing(self._connect(read_only=True)) as connection,
            self._errors_in_words(),
        ):
            if ample:
                self._make_ample(connection)
            yield connection

    @contextmanager
    def write(self, *, ample: bool = False, packed: int = PACKED_ROWS) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection inside a transaction, committed at the end and rolled back on an error.

        ``ample`` is as in ``read``; so many rows are ``packed`` together.
        """
        with self._locked(fcntl.LOCK_EX):
            is_new = not self.path.exists()
            with closing(self._connect(read_only=False, packed=packed)) as connection, self._errors_in_words():
                if is_new:
                    # Events are stored as they came: nobody else on the machine may read them.
                    self.path.chmod(0o600)
                if self._holds_own_tables and (is_new or not self._has_tables):
                    connection.execute(f"begin; {TABLES} commit")
                    self._has_tables = True
                if ample:
                    self._remove_leftovers()
                    self._make_ample(connection)
                connection.execute("begin")
                yield connection
                connection.execute("commit")

    @contextmanager
    def lease(self) -> Iterator[Path]:
        """Keep every other process away from the file, for a program that opens it by itself."""
        with self.write():
            pass
        with self._locked(fcntl.LOCK_EX):
            yield self.path

    def _is_complete(self) -> bool:
        """Say whether the tables are there: whoever made the file may have died before it made them."""
        if not self._has_tables and self.path.exists():
            with self._locked(fcntl.LOCK_SH), closing(self._connect(read_only=True)) as connection:
                found = connection.execute("select table_name from duckdb_tables()").fetchall()
            self._has_tables = {(name,) for name in TABLE_NAMES} <= set(found)
        return self._has_tables and self.path.exists()

    def _connect(self, *, read_only: bool, packed: int = PACKED_ROWS) -> duckdb.DuckDBPyConnection:
        import duckdb

        connection = duckdb.connect(config=CONFIG)
        try:
            path = str(self.path).replace("'", "''")
            option = "read_only" if read_only else f"row_group_size {packed}"
            connection.execute(f"attach '{path}' as hub ({option}); use hub; set timezone = 'UTC'")
        except duckdb.Error as error:
            connection.close()
            raise WarehouseError(f"warehouse {self.path} can't be opened: {error}") from error
        return connection

    def _make_ample(self, connection: duckdb.DuckDBPyConnection) -> None:
        # One folder for each connection: DuckDB's files there have the same names in every process. It makes the
        # folder when something has to wait, and takes it away at the end.
        folder = str(self._beside(f"{WAITING}{secrets.token_hex(8)}")).replace("'", "''")
        connection.execute(
            f"set memory_limit = '{self.ample_mb}MB'; set threads = {AMPLE_THREADS}; "
            f"set temp_directory = '{folder}'; set preserve_insertion_order = false"
        )

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        """Tell what is wrong with the machine or the file; a mistake in a statement stays DuckDB's own error."""
        import duckdb

        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise WarehouseError(
                f"warehouse {self.path}: {self.ample_mb} MB of memory are not enough for this statement: "
                "allow more by warehouse_memory_mb in the environment's YAML"
            ) from error
        except (duckdb.OperationalError, duckdb.FatalException, duckdb.InternalError) as error:
            raise WarehouseError(f"warehouse {self.path}: {_in_words(error)}") from error

    def _remove_leftovers(self) -> None:
        """Remove what killed processes have left: whoever may write is alone."""
        for folder in self.path.parent.glob(f"{glob.escape(self.path.name)}.{WAITING}*"):
            shutil.rmtree(folder)

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        # flock isn't fair: without the gate, readers that overlap keep a writer waiting for ever.
        with _opened(self._beside("gate")) as gate, _opened(self._beside("lock")) as lock:
            fcntl.flock(gate, mode)
            fcntl.flock(lock, mode)
            fcntl.flock(gate, fcntl.LOCK_UN)
            yield

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{ending}")


def is_full(error: Exception) -> bool:
    """Say whether an error of DuckDB's means that there is no room on the disk."""
    return any(words in str(error) for words in FULL)


def _in_words(error: Exception) -> str:
    """Return what an error that isn't a statement's means; DuckDB's own words may go on with a stack trace."""
    told, _, _ = str(error).partition("\n")
    if is_full(error):
        return f"there is no more room on the disk. Nothing of this transaction was kept ({told})"
    if any(words in told for words in DAMAGED):
        return f"the file is damaged: put a copy in its place ({told})"
    return told


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)
