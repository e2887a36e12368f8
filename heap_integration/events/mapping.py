"""Which column of a file is which part of an event: a small YAML file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.values import TimeUnit, Unreadable, as_text, parse_time

_COLUMN_FIELDS = ("event", "user_id", "anonymous_id", "group_id", "timestamp", "message_id")

Row = Any
Getter = Callable[[Row], Any]


class MappingError(ValueError):
    """A mapping that can't be used; the message names file, line, field and what is allowed."""


class Mapping(BaseModel):
    """The columns of an event, or of what is known of a person or an account.

    A dotted path (``actor.id``) reaches into nested objects unless a column bears that very name.
    ``properties`` lists columns, or is ``*`` for all that no other field takes; of ``identify`` and ``group``
    they are the traits. ``key_value_columns`` hold lists of keys with values, each of which becomes a
    property. ``event_name`` is the name itself, for rows that are all the same event.
    ``identical_rows: keep`` tells rows without a message id apart by file name and line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["track", "identify", "group"] = "track"
    event: str | None = Field(default=None, min_length=1)
    event_name: str | None = Field(default=None, min_length=1)
    user_id: str | None = None
    anonymous_id: str | None = None
    group_id: str | None = None
    timestamp: str | None = None
    timestamp_unit: TimeUnit = "auto"
    message_id: str | None = None
    identical_rows: Literal["merge", "keep"] = "merge"
    properties: Literal["*"] | tuple[str, ...] = "*"
    key_value_columns: tuple[str, ...] = ()
    source: str = "file"

    @model_validator(mode="after")
    def _is_whole(self) -> Mapping:
        if self.type == "track" and (self.event is None) == (self.event_name is None):
            raise ValueError("name the column of the event's name as event, or give the name itself as event_name")
        if self.type != "track" and (self.event or self.event_name):
            raise ValueError(f"only what is tracked has a name: leave event and event_name out of type: {self.type}")
        if (self.type == "group") != (self.group_id is not None):
            raise ValueError("group_id and type: group belong together")
        if self.type != "group" and self.user_id is None and self.anonymous_id is None:
            raise ValueError("name a column for user_id or anonymous_id")
        return self

    def columns(self) -> dict[str, str]:
        """Return every column named, by the field that names it."""
        named = {field: getattr(self, field) for field in _COLUMN_FIELDS if getattr(self, field) is not None}
        listed = () if self.properties == "*" else self.properties
        named |= {f"properties.{number}": column for number, column in enumerate(listed)}
        return named | {f"key_value_columns.{number}": column for number, column in enumerate(self.key_value_columns)}

    def check(self, columns: Sequence[str], file: Path | str, kind: str = "file") -> None:
        """Make sure that a file, or what else ``kind`` says, has all columns.

        Raises:
            MappingError: one is missing.
        """
        for field, column in self.columns().items():
            if column not in columns and column.split(".")[0] not in columns:
                has = ", ".join(columns)
                raise MappingError(f"{file}: {field.split('.')[0]}: no column {column!r} in the {kind}; it has {has}")

    def needed(self, columns: Sequence[str]) -> list[str]:
        """Return those of ``columns`` that the mapping reads."""
        if self.properties == "*":
            return list(columns)
        named = self.columns().values()
        roots = {*named, *(path.split(".")[0] for path in named)}
        return [column for column in columns if column in roots]


def load_mapping(path: Path) -> Mapping:
    """Read a mapping.

    Raises:
        MappingError: not YAML, an unknown field, a missing one, a value of another kind.
    """
    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MappingError(f"{path}: {error.strerror}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise MappingError(f"{place}: {error.problem}") from error
    except (YAMLError, UnicodeError) as error:
        raise MappingError(f"{path}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise MappingError(f"{path}:1: a mapping is written as field: column")
    try:
        return Mapping.model_validate(document)
    except ValidationError as error:
        raise MappingError("\n".join(_problems(path, document, error))) from error


def _problems(path: Path, document: Any, error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        where, message = problem["loc"], problem["msg"].removeprefix("Value error, ")
        field = str(where[0]) if where else "mapping"
        if problem["type"] == "extra_forbidden":
            message = f"unknown field; allowed are {', '.join(Mapping.model_fields)}"
        line = document.lc.key(field)[0] + 1 if field in document else 1
        lines.append(f"{path}:{line}: {field}: {message}")
    return list(dict.fromkeys(lines))


class RowReader:
    """Turns rows into events by a mapping.

    With ``columns`` (which must hold all that the mapping names, see ``Mapping.check``) a row is a
    sequence with a value for each of them; without, as in NDJSON, it is a dict.
    """

    def __init__(self, mapping: Mapping, columns: Sequence[str] | None, file: Path | str) -> None:
        self._mapping = mapping
        self._type = mapping.type
        self._event = mapping.event and _getter(mapping.event, columns)
        self._user_id = mapping.user_id and _getter(mapping.user_id, columns)
        self._anonymous_id = mapping.anonymous_id and _getter(mapping.anonymous_id, columns)
        self._group_id = mapping.group_id and _getter(mapping.group_id, columns)
        self._timestamp = mapping.timestamp and _getter(mapping.timestamp, columns)
        self._message_id = mapping.message_id and _getter(mapping.message_id, columns)
        self._taken = frozenset(mapping.columns().values())
        self._properties = self._property_getters(columns)
        self._lists = [(column, _getter(column, columns)) for column in mapping.key_value_columns]
        self._place = f"{Path(file).name}:" if mapping.identical_rows == "keep" else ""

    def _property_getters(self, columns: Sequence[str] | None) -> list[tuple[str, Getter]] | None:
        names = self._mapping.properties
        if names == "*":
            if columns is None:
                return None
            names = tuple(column for column in columns if column not in self._taken)
        return [(name, _getter(name, columns)) for name in names]

    def read(self, row: Row, line: int) -> Event | Refusal:
        """Return the event of ``row``, or why there is none."""
        mapping = self._mapping
        try:
            name = as_text(self._event(row)) if self._event else mapping.event_name
            user_id = as_text(self._user_id(row)) if self._user_id else None
            anonymous_id = as_text(self._anonymous_id(row)) if self._anonymous_id else None
            group_id = as_text(self._group_id(row)) if self._group_id else None
            message_id = (as_text(self._message_id(row)) or "") if self._message_id else ""
            timestamp = parse_time(self._timestamp(row), mapping.timestamp_unit) if self._timestamp else None
        except Unreadable as error:
            return Refusal(str(error))
        missing = self._missing(name, user_id or anonymous_id, group_id)
        if missing:
            return Refusal(missing)
        told = self._chosen(row)
        tracked = self._type == "track"
        return Event(
            self._type,
            name or "",
            user_id,
            anonymous_id,
            timestamp,
            message_id,
            told if tracked else {},
            {} if tracked else told,
            {"groupId": group_id} if group_id else {},
            source=mapping.source,
            occurrence=f"{self._place}{line}" if self._place and not message_id else "",
        )

    def _missing(self, name: str | None, user: str | None, group_id: str | None) -> str:
        mapping = self._mapping
        if self._type == "group":
            return "" if group_id else f"no group: {mapping.group_id} is empty"
        if user is None:
            columns = " and ".join(column for column in (mapping.user_id, mapping.anonymous_id) if column)
            return f"no user: {columns} is empty"
        return f"no event name: {mapping.event} is empty" if name is None and self._type == "track" else ""

    def _chosen(self, row: Row) -> dict[str, Any]:
        if self._properties is None:
            chosen = {name: value for name, value in row.items() if name not in self._taken}
        else:
            chosen = {name: value for name, get in self._properties if (value := get(row)) is not None}
        for column, get in self._lists:
            for key, value in _pairs(get(row), column):
                # where the name is taken, the column tells them apart
                chosen[f"{column}.{key}" if key in chosen else key] = value
        return chosen


def _pairs(listed: Any, column: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of ``[{"key": ..., "value": ...}]`` in any of the forms that formats give it.

    The value may stand under the name of its type, as in ``{"string_value": "x"}``; the list may also be a
    map. What is neither stays whole, under the column's name.
    """
    if listed is None:
        return
    pairs = list(listed.items()) if isinstance(listed, dict) else _listed_pairs(listed)
    if pairs is None:
        yield column, listed
        return
    for key, value in pairs:
        told = _typed(value)
        if told is not None:
            yield str(key), told


def _listed_pairs(listed: Any) -> list[tuple[Any, Any]] | None:
    if not isinstance(listed, list):
        return None
    pairs = [
        (each["key"], each.get("value"))
        if isinstance(each, dict) and "key" in each
        else each
        if isinstance(each, tuple) and len(each) == 2
        else None
        for each in listed
    ]
    return [pair for pair in pairs if pair] if None not in pairs else None


def _typed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    typed = [each for name, each in value.items() if name.endswith("_value")]
    return next((each for each in typed if each is not None), None) if typed or not value else value


def _getter(column: str, columns: Sequence[str] | None) -> Getter:
    if columns is None:
        return _path_getter(column) if "." in column else lambda row: row.get(column)
    if column in columns:
        return itemgetter(columns.index(column))
    root, *steps = column.split(".")
    index = columns.index(root)
    return lambda row: _walk(row[index], steps)


def _path_getter(column: str) -> Getter:
    steps = column.split(".")
    return lambda row: row[column] if column in row else _walk(row, steps)


def _walk(value: Any, steps: list[str]) -> Any:
    for step in steps:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value
