"""The statements of an export, in the words of each warehouse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

from heap_integration.warehouse.names import relation, spelt
from heap_integration.warehouse.systems.statements import literal
from heap_integration.warehouse.systems.system import Dialect

Kind = Literal["text", "time", "json"]

# What an exported table holds, in this order.
COLUMNS: dict[str, Kind] = {
    "event_id": "text",
    "session_id": "text",
    "user_id": "text",
    "time": "time",
    "event_type": "text",
    "event_properties": "json",
    "user_properties": "json",
    "page_url": "text",
    "page_title": "text",
    "referrer": "text",
    "device_type": "text",
    "browser": "text",
    "platform": "text",
    "country": "text",
    "region": "text",
    "city": "text",
}
# Heap may keep one event in the tables of several definitions: its id alone names it in none of them.
KEY = ("event_id", "event_type")
DAY, ARRIVED = "event_day", "arrived"

TYPES: Mapping[Dialect, Mapping[Kind, str]] = {
    "duckdb": {"text": "varchar", "time": "timestamp", "json": "json"},
    # jsonb refuses the character of the code 0 in a text
    "postgres": {"text": "text", "time": "timestamp", "json": "json"},
    "bigquery": {"text": "string", "time": "timestamp", "json": "json"},
    "snowflake": {"text": "varchar", "time": "timestamp_ntz", "json": "variant"},
    "redshift": {"text": "varchar(65535)", "time": "timestamp", "json": "super"},
    "tsql": {"text": "nvarchar(4000)", "time": "datetime2", "json": "nvarchar(max)"},
}

PARSED: Mapping[Dialect, str] = {
    "duckdb": "cast({} as json)",
    "postgres": "cast({} as json)",
    "bigquery": "parse_json({}, wide_number_mode=>'round')",
    "snowflake": "parse_json({})",
    "redshift": "json_parse({})",
    "tsql": "{}",
}


class Position(NamedTuple):
    """A place in the order of arrival: that of an event, or without its key the last of all that arrived together."""

    arrived: int
    event_id: str = ""
    event_type: str = ""


@dataclass(frozen=True)
class Words:
    """Names and values as a dialect writes them."""

    dialect: Dialect

    def name(self, name: str) -> str:
        """Return a column's name."""
        return spelt(name, self.dialect)

    def table(self, schema: str, name: str) -> str:
        """Return a table's name."""
        return relation(schema, name, self.dialect)

    def names(self, names: Iterable[str], of: str = "") -> str:
        """Return columns as a list; ``of`` is the table's alias."""
        return ", ".join(f"{of}.{self.name(name)}" if of else self.name(name) for name in names)

    def value(self, value: object) -> str:
        """Return a literal."""
        return literal(value, self.dialect)

    def values(self, values: Iterable[object]) -> str:
        """Return literals as a list."""
        return ", ".join(map(self.value, values))

    def create(self, table: str) -> str:
        """Return the statement that makes a table for exported events."""
        types = TYPES[self.dialect]
        columns = ", ".join(f"{self.name(name)} {types[kind]}" for name, kind in COLUMNS.items())
        # the columnstore that Synapse would choose can't hold texts of any length; PostgreSQL's key finds known events
        more = f", primary key ({self.names(KEY)})" if self.dialect == "postgres" else ""
        return f"create table {table} ({columns}{more})" + (" with (heap)" if self.dialect == "tsql" else "")

    def create_as(self, table: str, query: str) -> str:
        """Return the statement that makes a table of a query's rows."""
        if self.dialect == "tsql":
            return f"select * into {table} from ({query}) as chosen"
        return f"create table {table} as {query}"

    def insert(self, table: str, staged: str, *, only_new: bool) -> str:
        """Return the statement that moves staged events into their table; ``only_new`` passes over what is there."""
        name, as_json = self.name, PARSED[self.dialect]
        columns = ", ".join(
            as_json.format(f"staged.{name(column)}") if kind == "json" else f"staged.{name(column)}"
            for column, kind in COLUMNS.items()
        )
        unknown = f" where {self.unknown(table)}" if only_new else ""
        return f"insert into {table} ({self.names(COLUMNS)}) select {columns} from {staged} as staged{unknown}"

    def unknown(self, table: str) -> str:
        """Return the condition that a staged event isn't in the table."""
        same = " and ".join(f"known.{self.name(each)} = staged.{self.name(each)}" for each in KEY)
        return f"not exists (select 1 from {table} as known where {same})"

    def chosen(self, column: str, properties: Sequence[str] | None) -> str:
        """Return a column of JSON text with some of its properties only, none of its values changed."""
        if properties is None:
            return self.name(column)
        if not properties:
            return self.value("{}")
        return CHOICES[self.dialect](self, self.name(column), properties)

    def pending(self, days: Mapping[date, Position | None], until: Position | None = None) -> str:
        """Return the condition of events after a day's position, whole days where it is ``None``, up to ``until``."""
        day, conditions = self.name(DAY), []
        whole = [each for each, after in days.items() if after is None]
        if whole:
            conditions.append(f"{day} in ({self.values(whole)})")
        conditions += [
            f"({day} = {self.value(each)} and {self._beyond(after)})" for each, after in days.items() if after
        ]
        return f"({' or '.join(conditions) or '1 = 0'})" + self._up_to(until)

    def of_type(self, column: str, events: Sequence[str] | None) -> str:
        """Return the further condition that an event is one of those chosen."""
        return "" if events is None else f" and {self.name(column)} in ({self.values(events)})"

    def _beyond(self, after: Position) -> str:
        arrived, event_id, event_type = (self.name(each) for each in (ARRIVED, *KEY))
        later = f"{arrived} > {after.arrived}"
        if not after.event_id:
            return later
        same, key, kind = f"{arrived} = {after.arrived}", self.value(after.event_id), self.value(after.event_type)
        return (
            f"({later} or ({same} and {event_id} > {key}) or ({same} and {event_id} = {key} and {event_type} > {kind}))"
        )

    def _up_to(self, until: Position | None) -> str:
        return f" and not {self._beyond(until)}" if until else ""


def _of_duckdb(words: Words, column: str, properties: Sequence[str]) -> str:
    def pointer(key: str) -> str:
        return "/" + key.replace("~", "~0").replace("/", "~1")

    members = ", ".join(
        f"{words.value(json.dumps(key) + ':')} || cast(json_extract({column}, {words.value(pointer(key))}) as varchar)"
        for key in properties
    )
    return f"'{{' || concat_ws(',', {members}) || '}}'"


def _of_postgres(words: Words, column: str, properties: Sequence[str]) -> str:
    members = f"json_each(cast({column} as json)) where key in ({words.values(properties)})"
    return f"coalesce((select cast(json_object_agg(key, value) as text) from {members}), '{{}}')"


def _of_bigquery(words: Words, column: str, properties: Sequence[str]) -> str:
    members = ", ".join(
        f"concat({words.value(json.dumps(key) + ':')}, json_query({column}, {words.value('$.' + json.dumps(key))}))"
        for key in properties
    )
    return f"concat('{{', array_to_string([{members}], ','), '}}')"


def _of_snowflake(words: Words, column: str, properties: Sequence[str]) -> str:
    return f"to_json(object_pick(parse_json({column}), {words.values(properties)}))"


def _of_redshift(words: Words, column: str, properties: Sequence[str]) -> str:
    paths = ", ".join(words.value(json.dumps(key)) for key in properties)
    return f"json_serialize(object_transform(json_parse({column}) keep {paths}))"


def _of_tsql(words: Words, column: str, properties: Sequence[str]) -> str:
    # 0 and 1 are the types of null and of text; all others are written as they are
    value = (
        "case [type] when 0 then 'null' when 1 then concat('\"', string_escape([value], 'json'), '\"') else [value] end"
    )
    member = f"concat('\"', string_escape([key], 'json'), '\":', {value})"
    kept = f"openjson({column}) where [key] in ({words.values(properties)})"
    return f"(select concat('{{', string_agg({member}, ','), '}}') from {kept})"


CHOICES: Mapping[Dialect, Callable[[Words, str, Sequence[str]], str]] = {
    "duckdb": _of_duckdb,
    "postgres": _of_postgres,
    "bigquery": _of_bigquery,
    "snowflake": _of_snowflake,
    "redshift": _of_redshift,
    "tsql": _of_tsql,
}
