"""Which column of a file is which part of an event: a small YAML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from heap_integration.events.event import Event, Refusal
from heap_integration.events.sources.values import TimeUnit, Unreadable, as_text, parse_time

Row = Any
Getter = Callable[[Row], Any]


class MappingError(ValueError):
    """A mapping that can't be used; the message names file, line, field and what is allowed."""


class Mapping(BaseModel):
    """The columns of an event.

    A dotted path (``actor.id``) reaches into nested objects unless a column bears that very name.
    ``properties`` lists columns, or is ``*`` for all that no other field takes.
    ``identical_rows: keep`` tells rows without a message id apart by file name and line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: str = Field(min_length=1)
    user_id: str | None = None
    anonymous_id: str | None = None
    timestamp: str | None = None
    timestamp_unit: TimeUnit = "auto"
    message_id: str | None = None
    identical_rows: Literal["merge", "keep"] = "merge"
    properties: Literal["*"] | tuple[str, ...] = "*"
    source: str = "file"

    @model_validator(mode="after")
    def _has_user(self) -> Mapping:
        if self.user_id is None and self.anonymous_id is None:
            raise ValueError("name a column for user_id or anonymous_id")
        return self

    def columns(self) -> dict[str, str]:
        """Return every column named, by the field that names it."""
        named = {
            field: getattr(self, field)
            for field in ("event", "user_id", "anonymous_id", "timestamp", "message_id")
            if getattr(self, field) is not None
        }
        listed = () if self.properties == "*" else self.properties
        return named | {f"properties.{number}": column for number, column in enumerate(listed)}

    def check(self, columns: Sequence[str], file: Path | str) -> None:
        """Make sure that a file has all columns.

        Raises:
            MappingError: one is missing.
        """
        for field, column in self.columns().items():
            if column not in columns and column.split(".")[0] not in columns:
                has = ", ".join(columns)
                raise MappingError(f"{file}: {field.split('.')[0]}: no column {column!r} in the file; it has {has}")

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
        self._event = _getter(mapping.event, columns)
        self._user_id = mapping.user_id and _getter(mapping.user_id, columns)
        self._anonymous_id = mapping.anonymous_id and _getter(mapping.anonymous_id, columns)
        self._timestamp = mapping.timestamp and _getter(mapping.timestamp, columns)
        self._message_id = mapping.message_id and _getter(mapping.message_id, columns)
        self._taken = frozenset(mapping.columns().values())
        self._properties = self._property_getters(columns)
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
            name = as_text(self._event(row))
            user_id = as_text(self._user_id(row)) if self._user_id else None
            anonymous_id = as_text(self._anonymous_id(row)) if self._anonymous_id else None
            message_id = (as_text(self._message_id(row)) or "") if self._message_id else ""
            timestamp = parse_time(self._timestamp(row), mapping.timestamp_unit) if self._timestamp else None
        except Unreadable as error:
            return Refusal(str(error))
        if user_id is None and anonymous_id is None:
            columns = " and ".join(column for column in (mapping.user_id, mapping.anonymous_id) if column)
            return Refusal(f"no user: {columns} is empty")
        if name is None:
            return Refusal(f"no event name: {mapping.event} is empty")
        return Event(
            "track",
            name,
            user_id,
            anonymous_id,
            timestamp,
            message_id,
            self._chosen(row),
            source=mapping.source,
            occurrence=f"{self._place}{line}" if self._place and not message_id else "",
        )

    def _chosen(self, row: Row) -> dict[str, Any]:
        if self._properties is None:
            return {name: value for name, value in row.items() if name not in self._taken}
        return {name: value for name, get in self._properties if (value := get(row)) is not None}


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
