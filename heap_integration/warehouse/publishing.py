"""The hub's own tables in a warehouse that isn't DuckDB, where models and audiences find them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from heap_integration.warehouse.names import relation, translated
from heap_integration.warehouse.spool import spooled
from heap_integration.warehouse.systems.system import Connection, Dialect, QueryError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from heap_integration.warehouse import Warehouse

# So many rows, and those of the part with which they end, go out in one transaction.
ROWS_AT_ONCE = 200_000
BATCH_ROWS = 20_000
# What is found to differ is sent anew as a whole: small enough to be sent again, large enough to be few.
EVENT_BLOCK, OUTCOME_BLOCK = 10_000, 50_000

PARTS, PUBLICATION = "_hub_parts", "_hub_publication"
ARRIVING, ARRIVING_PARTS = "_hub_arriving", "_hub_arriving_parts"
TRAITS = "user_traits"


def _json(column: str) -> str:
    """Return JSON without the code 0, which PostgreSQL's JSON can't hold; an escaped backslash is none of it."""
    kept = rf"replace(replace(replace({column}, '\\', chr(1)), '\u0000', ''), chr(1), '\\')"
    return rf"case when contains({column}, '\u0000') then {kept} else {column} end"


@dataclass(frozen=True)
class OwnTable:
    """One of the hub's tables, in DuckDB's SQL: where its rows are, and how they are published.

    Rows belong to parts, by the text ``part``: the number of a block of ``block`` sequence numbers, else the column of
    that name among those that are published. ``state`` is an aggregate over a part that changes whenever a row
    of it does. ``rows`` selects what is published from ``chosen``, the rows of the source that belong to some parts.
    """

    name: str
    source: str
    rows: str
    state: str
    part: str = ""
    block: int = 0

    @property
    def belongs_to(self) -> str:
        """The part of a row of the source."""
        return f"seq // {self.block}" if self.block else self.part


TABLES = (
    OwnTable(
        "product_events",
        "product_events",
        f"""
        select seq, event_key::varchar as event_key, message_id, type, name, user_id, anonymous_id, timestamp,
               event_day, received_at, source, {_json("properties")} as properties, {_json("traits")} as traits,
               {_json("context")} as context, origin, line, suppressed
        from chosen order by seq
        """,
        # an event never changes, and none is ever taken away
        "count(*)",
        block=EVENT_BLOCK,
    ),
    OwnTable(
        "event_outcomes",
        "event_outcomes",
        """
        select seq, event_key::varchar as event_key, event_day, type, origin, status::integer as status, reason,
               settled_at
        from chosen order by seq
        """,
        "count(*) || ' ' || sum(epoch_us(settled_at)) || ' ' || sum(status)",
        block=OUTCOME_BLOCK,
    ),
    OwnTable(
        "rejected_rows",
        "(select *, loaded_at::date::varchar as loaded_day from rejected_rows)",
        # what the line said stays at home: it may hold anything
        "select origin, line, reason, loaded_at, loaded_day from chosen",
        "count(*) || ' ' || bit_xor(hash(origin, line, reason, loaded_at))",
        part="loaded_day",
    ),
    OwnTable(
        "sync_runs",
        "(select *, finished_at::date::varchar as finished_day from sync_runs)",
        "from chosen",
        "count(*) || ' ' || bit_xor(hash(sync, finished_at))",
        part="finished_day",
    ),
    OwnTable(
        "sync_rejections",
        "sync_rejections",
        "select sync, identity, action::integer as action, reason, settled_at from chosen",
        "count(*) || ' ' || bit_xor(hash(identity, action, reason, settled_at))",
        part="sync",
    ),
    OwnTable(
        TRAITS,
        "hub_traits",
        f"""
        select identity, seq, told_at, trait, to_json(trait) || ':' || value as entry
        from (
            select identity, seq, told_at,
                   unnest(case when json_keys(told) = [] then [null] else json_keys(told) end) as trait,
                   unnest(json_extract(told, '$.*')) as value
            from (select identity, seq, told_at, {_json("properties")} as told from chosen)
        )
        order by seq
        """,
        "count(*)",
        block=EVENT_BLOCK,
    ),
)

# The newest value of each trait that was told of a user, as one JSON object; of those told before a moment, if any.
USERS_OF_TRAITS = """
select identity, '{{' || coalesce(string_agg(entry, ','), '') || '}}' as properties
from (
    select identity, entry,
           row_number() over (partition by identity, trait order by told_at desc, seq desc) as nth
    from {user_traits} {before}
) as told
where nth = 1
group by identity
"""

VIEWS = {
    "hub_users": USERS_OF_TRAITS,
    "hub_events": """
        select user_id as identity, name as event, timestamp as time, properties from {product_events}
        where type in ('track', 'page', 'screen') and user_id is not null and suppressed is null
    """,
    "hub_traits": """
        select user_id as identity, seq,
               case when timestamp < received_at then timestamp else received_at end as told_at, traits as properties
        from {product_events} where type = 'identify' and user_id is not null and suppressed is null
    """,
}


@dataclass(frozen=True)
class Published:
    """How many rows of each table were sent, for the first time or anew."""

    rows: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The rows of all tables together."""
        return sum(self.rows.values())


def publish(
    own: Warehouse,
    connection: Connection,
    schema: str,
    dialect: Dialect,
    progress: Callable[[str, int], None] = lambda _table, _rows: None,
) -> Published:
    """Bring the tables in ``schema`` up to date with the hub's own; only what has changed is sent.

    What was sent is noted in the transaction that puts it in its place, so whoever dies on the way costs nothing, and
    what is wrong there comes right by itself. Readers see each table as it was after one of these transactions.

    Raises:
        QueryError: the warehouse refuses it, or another process publishes to it at the same time.
    """
    publisher = _Publisher(own, connection, schema, dialect)
    publisher.prepare()
    publisher.look()
    publisher.complete()
    rows = {}
    for table in TABLES:
        rows[table.name] = 0
        for sent in publisher.send(table):
            rows[table.name] += sent
            progress(table.name, rows[table.name])
    publisher.clean(any(rows.values()))
    return Published(rows)


@dataclass(frozen=True)
class _Part:
    """A part of a table as it is here; gone where ``state`` is ``None``. ``known``: it was published before."""

    name: str
    rows: int
    state: str | None
    known: bool


class _Publisher:
    def __init__(self, own: Warehouse, connection: Connection, schema: str, dialect: Dialect) -> None:
        self.own = own
        self.connection = connection
        self.schema = schema
        self.dialect = dialect
        self.run = ""
        self.here: dict[str, list[tuple[Any, ...]]] = {}
        self.empty: dict[str, pa.RecordBatch] = {}

    def look(self) -> None:
        """Find the state of each part here, and what the tables' columns are."""
        import pyarrow as pa

        with self.own.read(ample=True) as con:
            for table in TABLES:
                sql = f"with chosen as (select * from {table.source} limit 0) {table.rows}"
                schema = con.execute(sql).to_arrow_table().schema
                self.empty[table.name] = pa.RecordBatch.from_pylist([], schema=schema)
                self.here[table.name] = con.execute(
                    f"select {table.belongs_to}, count(*), {table.state} from {table.source} group by 1 order by 1"
                ).fetchall()

    def prepare(self) -> None:
        """Make the notes where there are none, and find out who has published last.

        What is read after that holds for as long as nobody else has published.
        """
        import pyarrow as pa

        there = set(self.connection.tables(self.schema))
        if PARTS not in there:
            self._load(PARTS, pa.table({name: pa.array([], pa.string()) for name in ("table_name", "part", "state")}))
        if PUBLICATION not in there:
            self._load(PUBLICATION, pa.table({"run": ["none"]}))
        ((self.run,),) = self._fetch(f"select run from {{{PUBLICATION}}}")

    def complete(self) -> None:
        """Make tables that aren't there; one that lacks a column is made anew, and what was noted of it forgotten."""
        there = set(self.connection.tables(self.schema))
        for table in TABLES:
            columns = self.empty[table.name].schema
            if table.name in there and set(self.connection.columns(self.schema, table.name)) == set(columns.names):
                continue
            views = [name for name in VIEWS if name in there]
            there -= set(views)
            self.connection.run([f"drop view {self._place(name)}" for name in views])
            self.connection.run([self._sql(f"delete from {{{PARTS}}} where table_name = '{table.name}'")])
            self.connection.load(self.schema, table.name, [self.empty[table.name]], columns)
            if table.block and self.dialect == "postgres":
                # Rows lie in the order of their numbers, and nearly so of their days.
                days = ", event_day" if "event_day" in columns.names else ""
                self.connection.run([f"create index on {self._place(table.name)} using brin (seq{days})"])
        for name, select in VIEWS.items():
            if name not in there:
                self.connection.run([f"create view {self._place(name)} as {self._sql(select)}"])

    def send(self, table: OwnTable) -> Iterator[int]:
        """Send the parts of a table that differ, and yield the rows of each transaction."""
        for parts in _pieces(self._differing(table)):
            with spooled() as spool:
                with self.own.read(ample=True) as con:
                    spool.fill(chain([self.empty[table.name]], self._rows(con, table, parts)))
                with spool.read() as reader:
                    self.connection.load(self.schema, ARRIVING, reader, reader.schema)
                    self._exchange(table, parts, reader.schema.names)
                yield spool.rows

    def clean(self, sent: bool) -> None:
        """Empty the table through which rows came."""
        if sent:
            empty = self.empty[TABLES[0].name]
            self.connection.load(self.schema, ARRIVING, [empty], empty.schema)

    def _differing(self, table: OwnTable) -> list[_Part]:
        noted = dict(self._fetch(f"select part, state from {{{PARTS}}} where table_name = '{table.name}'"))
        found = self.here[table.name]
        here = [_Part(str(part), int(rows), str(state), str(part) in noted) for part, rows, state in found]
        names = {part.name for part in here}
        gone = [_Part(name, 0, None, known=True) for name in noted if name not in names]
        return [*gone, *(part for part in here if noted.get(part.name) != part.state)]

    def _rows(self, con: duckdb.DuckDBPyConnection, table: OwnTable, parts: Sequence[_Part]) -> pa.RecordBatchReader:
        names = [part.name for part in parts]
        chosen, values = f"{table.belongs_to} in (select unnest($parts))", dict[str, Any](parts=names)
        if table.block:
            numbers = list(map(int, names))
            chosen += f" and seq >= {min(numbers) * table.block} and seq < {(max(numbers) + 1) * table.block}"
            values["parts"] = numbers
        sql = f"with chosen as (select * from {table.source} where {chosen}) {table.rows}"
        return con.execute(sql, values).to_arrow_reader(BATCH_ROWS)

    def _exchange(self, table: OwnTable, parts: Sequence[_Part], columns: Sequence[str]) -> None:
        """Put what has arrived in the place of what is there, together with the note of it, unless it was done."""
        import pyarrow as pa

        noted = pa.table({"part": [part.name for part in parts], "state": [part.state for part in parts]})
        self._load(ARRIVING_PARTS, noted.cast(pa.schema([("part", pa.string()), ("state", pa.string())])))
        before, self.run = self.run, uuid.uuid4().hex
        # Nothing below happens if another process has been faster: a late one may still be at work when this begins.
        mine = f"exists (select 1 from {{{PUBLICATION}}} where run = '{self.run}')"
        listed = ", ".join(columns)
        statements = [
            f"update {{{PUBLICATION}}} set run = '{self.run}' where run = '{before}'",
            *([f"delete from {{{table.name}}} where {there} and {mine}"] if (there := _there(table, parts)) else []),
            f"insert into {{{table.name}}} ({listed}) select {listed} from {{{ARRIVING}}} where {mine}",
            f"delete from {{{PARTS}}} where table_name = '{table.name}'"
            f" and part in (select part from {{{ARRIVING_PARTS}}}) and {mine}",
            f"insert into {{{PARTS}}} (table_name, part, state) select '{table.name}', part, state"
            f" from {{{ARRIVING_PARTS}}} where state is not null and {mine}",
        ]
        self.connection.run([self._sql(statement) for statement in statements])
        if self._fetch(f"select run from {{{PUBLICATION}}}") != [(self.run,)]:
            raise QueryError(f"another process publishes to {self.schema} at the same time: one at a time can")

    def _place(self, table: str) -> str:
        return relation(self.schema, table, self.dialect)

    def _sql(self, statement: str) -> str:
        """Return a statement of DuckDB for the warehouse; names in braces are tables of the schema."""
        names = [PARTS, PUBLICATION, ARRIVING, ARRIVING_PARTS, *(table.name for table in TABLES)]
        places = {name: f'"{self.schema}"."{name}"' for name in names} | {"before": ""}
        return translated(statement.format_map(places), self.dialect)

    def _fetch(self, statement: str) -> list[tuple[Any, ...]]:
        return list(rows_of(self.connection.batches(self._sql(statement))))

    def _load(self, name: str, table: pa.Table) -> None:
        self.connection.load(self.schema, name, table.to_batches(), table.schema)


def rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of batches."""
    for batch in batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _pieces(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Yield parts in groups of about so many rows as go out in one transaction."""
    sizes, sofar = {}, 0
    parts = list(parts)
    for part in parts:
        sizes[part.name] = sofar // ROWS_AT_ONCE
        sofar += part.rows
    for _, group in groupby(parts, key=lambda part: sizes[part.name]):
        yield list(group)


def _there(table: OwnTable, parts: Sequence[_Part]) -> str:
    """Return the condition of rows that may be there already, empty where none can."""
    known = [part.name for part in parts if part.known]
    if not known:
        return ""
    if not table.block:
        return f"{table.part} in (select part from {{{ARRIVING_PARTS}}})"
    numbers = sorted(map(int, known))
    ranges = (f"seq >= {number * table.block} and seq < {(number + 1) * table.block}" for number in numbers)
    return f"({' or '.join(ranges)})"
