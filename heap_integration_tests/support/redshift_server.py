"""A stand-in for Redshift: its wire protocol by pg-mimic, its SQL by sqlglot and DuckDB; a program of its own.

Usage: python redshift_server.py <file for the port> [<address of S3>]
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pg_mimic
import sqlglot
from pg_mimic.session import StaticStatement

DATABASE = "heap"
VIEWS = """
attach ':memory:' as heap;
use heap;
create schema redshift;
create view redshift.svv_all_tables as
select table_catalog as database_name, table_schema as schema_name, table_name from information_schema.tables;
create view redshift.svv_all_columns as
select table_catalog as database_name, table_schema as schema_name, table_name, column_name, data_type,
       ordinal_position
from information_schema.columns;
"""
OIDS = {
    "BOOLEAN": pg_mimic.BOOL,
    "TINYINT": pg_mimic.INT2,
    "SMALLINT": pg_mimic.INT2,
    "INTEGER": pg_mimic.INT4,
    "BIGINT": pg_mimic.INT8,
    "HUGEINT": pg_mimic.NUMERIC,
    "DOUBLE": pg_mimic.FLOAT8,
    "FLOAT": pg_mimic.FLOAT4,
    "DATE": pg_mimic.DATE,
    "TIMESTAMP": pg_mimic.TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": pg_mimic.TIMESTAMPTZ,
    "BLOB": pg_mimic.BYTEA,
}
READ_ONLY, TIMED_OUT, REFUSED = "25006", "57014", "42601"
COPY = re.compile(r"""copy (\S+) from '(s3://[^']+)' iam_role (default|'[^']+') format as parquet""")

database = duckdb.connect()
database.execute(VIEWS)
storage: list[str] = sys.argv[2:]


class Session(pg_mimic.Session):
    """A session: transactions, settings, cursors, and everything else as DuckDB answers it."""

    middleware = (pg_mimic.middleware.set_show,)

    async def init(self, connection: Any) -> None:
        await super().init(connection)
        self.connection = connection
        self.duck = database.cursor()
        self.duck.execute("use heap; set search_path = 'main,redshift'; set TimeZone = 'UTC'")
        self.read_only = False
        self.cursors: dict[str, tuple[list[pg_mimic.ResultColumn], list[tuple[Any, ...]]]] = {}

    async def prepare(self, sql: str, param_oids: list[int | None]) -> pg_mimic.Statement:
        """Run a statement at once: clients of the simple protocol prepare each one exactly once."""
        words = sql.strip().rstrip(";").split()
        kind = words[0].lower() if words else ""
        if kind in ("begin", "commit", "rollback"):
            return self._transaction(kind, read_only="read only" in sql.lower())
        if kind == "declare":
            self.cursors[words[1]] = self._answer(sql[sql.index(" for ") + 5 :])
            return StaticStatement("DECLARE CURSOR", None, [])
        if kind == "fetch":
            columns, rows = self.cursors[words[-1]]
            taken, rows[:] = rows[: int(words[2])], rows[int(words[2]) :]
            return StaticStatement(f"FETCH {len(taken)}", columns, taken)
        if copy := COPY.fullmatch(sql.strip()):
            return self._copy(copy[1], copy[2])
        if kind in ("set", "show"):
            return await super().prepare(sql, param_oids)
        columns, rows = self._answer(sql)
        return StaticStatement(sql, columns or None, rows)

    def _transaction(self, kind: str, *, read_only: bool) -> pg_mimic.Statement:
        if kind == "begin" or self.connection.tx_status != b"I":
            self.duck.execute(kind)
        self.connection.tx_status = b"T" if kind == "begin" else b"I"
        self.read_only = read_only
        return StaticStatement(kind.upper(), None, [])

    def _answer(self, sql: str) -> tuple[list[pg_mimic.ResultColumn], list[tuple[Any, ...]]]:
        tree = sqlglot.parse_one(sql, dialect="redshift")
        if self.read_only and not isinstance(tree, sqlglot.exp.Query):
            raise pg_mimic.PgError(READ_ONLY, "transaction is read-only")
        milliseconds = int(self.connection.session_vars.get("statement_timeout", "0"))
        alarm = threading.Timer(milliseconds / 1000, self.duck.interrupt) if milliseconds else None
        if alarm:
            alarm.start()
        try:
            done = self.duck.execute(tree.sql("duckdb"))
            rows = done.fetchall() if isinstance(tree, sqlglot.exp.Query) else []
        except duckdb.InterruptException as error:
            raise pg_mimic.PgError(TIMED_OUT, "Query cancelled on user's request") from error
        except duckdb.Error as error:
            raise pg_mimic.PgError(REFUSED, str(error)) from error
        finally:
            if alarm:
                alarm.cancel()
        if not isinstance(tree, sqlglot.exp.Query):
            return [], []
        return [pg_mimic.ResultColumn(name, _oid(str(kind))) for name, kind, *_ in done.description], rows

    def _copy(self, table: str, folder: str) -> pg_mimic.Statement:
        import pyarrow.fs
        import pyarrow.parquet as pq

        files = pyarrow.fs.S3FileSystem(
            endpoint_override=storage[0], access_key="key", secret_key="secret", region="us-east-1"
        )
        self.duck.register("arrived", pq.read_table(folder.removeprefix("s3://").rstrip("/"), filesystem=files))
        self.duck.execute(f"insert into {table} from arrived")
        self.duck.unregister("arrived")
        return StaticStatement("COPY", None, [])


def _oid(kind: str) -> int:
    return pg_mimic.NUMERIC if kind.startswith("DECIMAL") else OIDS.get(kind, pg_mimic.TEXT)


async def main(port_file: Path) -> None:
    """Serve until the end; the port goes to a file."""
    server = pg_mimic.PgServer(
        session_factory=Session,
        auth_plugin_factory=lambda username: pg_mimic.ClearTextPasswordAuthPlugin(),
        identity_provider=pg_mimic.SimpleIdentityProvider({"hub": "secret"}),
        server_version="8.0.2",
    )
    started = await server.start_server("127.0.0.1", 0)
    port_file.write_text(str(started.sockets[0].getsockname()[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
