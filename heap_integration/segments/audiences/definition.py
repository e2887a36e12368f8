"""Audience definitions: what they may say, read from JSON or YAML, with the place of every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from heap_integration.environment_yaml import EnvironmentProblems, Lines, Problem, field_path, problems_of, read_yaml
from heap_integration.segments.audiences.values import Value, ValueKind, kind_of, moment, text, value
from heap_integration.settings import Name, Settings

LARGEST_LIST = 10_000
MOST_STEPS = 5
DEEPEST = 20
TOO_DEEP = f"is nested too deep: at most {DEEPEST} groups may lie inside of each other"
# A century: what is longer is a mistake, and no engine's calendar ends sooner.
MOST_DAYS = 36_500

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "contains", "exists", "between"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)

Label = Annotated[Name, AfterValidator(text)]
Days = Annotated[int, Field(ge=1, le=MOST_DAYS, strict=True)]
Times = Annotated[int, Field(ge=0, strict=True)]
Compared = Annotated[Any, BeforeValidator(value)]


def _ordered(given: Any) -> Any:
    if given is not None and kind_of(given) not in ("number", "time"):
        raise PydanticCustomError("ordered", "must be a number or a date: texts have no order here")
    return given


def _bare(given: Any) -> Any:
    """A bare value asks for what is equal to it."""
    if isinstance(given, list | tuple):
        raise PydanticCustomError("bare_list", "must be one value or operators; a list asks {in: [a, b]}")
    return given if isinstance(given, dict | Comparison | Count) else {"eq": value(given)}


Ordered = Annotated[Any, BeforeValidator(value), AfterValidator(_ordered)]


# What "in" and "not in" are called here: the one is a word of Python, the other goes with it.
FIELDS = {"in": "one_of", "not_in": "none_of"}


class Comparison(Settings):
    """What a property must be; several operators must all hold, and never hold where there is no value.

    Only ``exists: false`` holds there. Values compare by their own type: a number with numbers and with texts that are
    one, an ISO date with dates, all else as text.
    """

    model_config = ConfigDict(populate_by_name=False)

    eq: Compared | None = None
    ne: Compared | None = None
    gt: Ordered | None = None
    gte: Ordered | None = None
    lt: Ordered | None = None
    lte: Ordered | None = None
    one_of: tuple[Compared, ...] | None = Field(None, alias="in", min_length=1, max_length=LARGEST_LIST)
    none_of: tuple[Compared, ...] | None = Field(None, alias="not_in", min_length=1, max_length=LARGEST_LIST)
    contains: Annotated[str, Field(min_length=1), AfterValidator(text)] | None = None
    exists: Annotated[bool, Field(strict=True)] | None = None
    between: tuple[Ordered, ...] | None = None

    @field_validator("one_of", "none_of", "between")
    @classmethod
    def _of_one_type(cls, given: tuple[Value, ...] | None) -> tuple[Value, ...] | None:
        if given and len({kind_of(item) for item in given}) > 1:
            raise PydanticCustomError("one_type", "must hold values of one type")
        return given

    @field_validator("between")
    @classmethod
    def _between_two(cls, given: tuple[Value, ...] | None) -> tuple[Value, ...] | None:
        if given is not None and (len(given) != 2 or _sortable(given[0]) > _sortable(given[1])):
            raise PydanticCustomError("between", "must be two values, the smaller one first; both belong to it")
        return given

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        asked = dict(self.asked())
        if not asked:
            raise PydanticCustomError("no_operator", f"must have an operator: {', '.join(OPERATORS)}")
        if asked.get("exists") is False and len(asked) > 1:
            raise PydanticCustomError("never", "can't hold: nothing that doesn't exist has a value")
        if len(self.kinds()) > 1:
            raise PydanticCustomError("one_type", "asks for values of two types at once, which nothing can have")
        return self

    def asked(self) -> Iterator[tuple[Operator, Any]]:
        """Yield each operator that stands there with what it is given."""
        for operator in OPERATORS:
            given = getattr(self, FIELDS.get(operator, operator))
            if given is not None:
                yield operator, given

    def kinds(self) -> set[ValueKind]:
        """Return the types of what it compares with: one, or none where it only asks for existence."""
        found: set[ValueKind] = set()
        for operator, given in self.asked():
            if operator == "contains":
                found.add("text")
            elif operator != "exists":
                found |= {kind_of(item) for item in (given if isinstance(given, tuple) else (given,))}
        return found


class Count(Settings):
    """How many events it takes; a bare number means exactly so many. Several operators must all hold."""

    eq: Times | None = None
    ne: Times | None = None
    gt: Times | None = None
    gte: Times | None = None
    lt: Annotated[int, Field(ge=1, strict=True)] | None = None
    lte: Times | None = None
    between: tuple[Times, Times] | None = None

    @field_validator("between")
    @classmethod
    def _in_order(cls, given: tuple[int, int] | None) -> tuple[int, int] | None:
        if given is not None and given[0] > given[1]:
            raise PydanticCustomError("between", "must be two values, the smaller one first; both belong to it")
        return given

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not dict(self.asked()):
            raise PydanticCustomError("no_operator", f"must have an operator: {', '.join(Count.model_fields)}")
        return self

    def asked(self) -> Iterator[tuple[str, Any]]:
        """Yield each operator that stands there with what it is given."""
        for name in Count.model_fields:
            given = getattr(self, name)
            if given is not None:
                yield name, given

    @property
    def admits_none(self) -> bool:
        """Whether somebody without any such event fulfils it."""
        return all(ADMITS_NONE[operator](given) for operator, given in self.asked())


ADMITS_NONE: dict[str, Callable[[Any], bool]] = {
    "eq": lambda times: times == 0,
    "ne": lambda times: times != 0,
    "gt": lambda _: False,
    "gte": lambda times: times == 0,
    "lt": lambda _: True,
    "lte": lambda _: True,
    "between": lambda times: times[0] == 0,
}


Comparisons = dict[Label, Annotated[Comparison, BeforeValidator(_bare)]]


class Event(Settings):
    """Events of one name, by their properties."""

    type: Label
    properties: Comparisons = Field(default_factory=dict)


class Happened(Event):
    """Events of the last days before the audience's moment, without ``within_days`` of all time; at least one."""

    within_days: Days | None = None
    count: Annotated[Count, BeforeValidator(_bare)] = Count(gte=1)


class Once(Event):
    """When the first or the last such event was; ``after`` includes its moment, ``before`` doesn't."""

    before: Compared | None = None
    after: Compared | None = None
    within_days: Days | None = None
    more_than_days_ago: Days | None = None

    @field_validator("before", "after")
    @classmethod
    def _is_a_moment(cls, given: Any) -> Any:
        if given is not None and kind_of(given) != "time":
            raise PydanticCustomError("moment", "must be a date or a time, such as 2026-01-31 or 2026-01-31T12:00:00Z")
        return given

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if all(each is None for each in (self.before, self.after, self.within_days, self.more_than_days_ago)):
            raise PydanticCustomError("no_bound", "must have before, after, within_days or more_than_days_ago")
        if self.before is not None and self.after is not None and moment(self.before) <= moment(self.after):
            raise PydanticCustomError("never", "can't hold: before must be later than after")
        return self


class Sequence(Settings):
    """Events one after the other, each later than the one before; others may come between them.

    ``within_days_of_first`` is the time from the first to the last of them, ``within_days`` means that all of them
    were in the last days.
    """

    steps: tuple[Event, ...]
    within_days_of_first: Days | None = None
    within_days: Days | None = None

    @field_validator("steps")
    @classmethod
    def _some_steps(cls, given: tuple[Event, ...]) -> tuple[Event, ...]:
        if not 2 <= len(given) <= MOST_STEPS:
            raise PydanticCustomError("steps", f"must be 2 to {MOST_STEPS} events")
        return given


class Group(Settings):
    """Conditions that must all hold; ``any``, ``all`` and ``none`` hold groups of them, up to 20 inside of each other.

    ``segments`` are the names of other segments of the environment, or of Heap. ``models`` are scores and stages
    by the names that the environment's ``audiences.models`` gives them.
    """

    events: tuple[Happened, ...] = ()
    exclude_events: tuple[Happened, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    first: tuple[Once, ...] = ()
    last: tuple[Once, ...] = ()
    user_properties: Comparisons = Field(default_factory=dict)
    models: Comparisons = Field(default_factory=dict)
    segments: tuple[Label, ...] = ()
    exclude_segments: tuple[Label, ...] = ()
    any: tuple[Group, ...] = ()
    all: tuple[Group, ...] = ()
    none: tuple[Group, ...] = ()

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.model_fields_set or not [name for name in Group.model_fields if getattr(self, name)]:
            raise PydanticCustomError("no_condition", f"must have a condition: {', '.join(Group.model_fields)}")
        return self

    def groups(self) -> Iterator[tuple[tuple[str | int, ...], Group]]:
        """Yield this group and all below it, each with its place under this one."""
        yield (), self
        for name in ("any", "all", "none"):
            for index, group in enumerate(getattr(self, name)):
                for place, below in group.groups():
                    yield (name, index, *place), below


class AudienceDefinition(Settings):
    """What an audience's file says: its name, and who belongs to it."""

    name: Label
    description: str = ""
    definition: Group

    def segment_names(self) -> set[str]:
        """Return the names of the other segments that it asks for."""
        return {name for _, group in self.definition.groups() for name in (*group.segments, *group.exclude_segments)}


def load_definition(file: Path) -> tuple[AudienceDefinition, Lines]:
    """Read a JSON or YAML file, and where its fields stand.

    Raises:
        EnvironmentProblems: everything that is wrong with it, with line, field and what is allowed.
    """
    try:
        given = _json(file) if file.suffix == ".json" and file.is_file() else None
        data, lines = read_yaml(file)
        definition = AudienceDefinition.model_validate(given or data)
    except ValidationError as error:
        raise EnvironmentProblems(problems_of(error, file, lines, AudienceDefinition)) from None
    except RecursionError:
        raise EnvironmentProblems([Problem(file, None, "definition", TOO_DEEP)]) from None
    for place, _ in definition.definition.groups():
        if len(place) > 2 * DEEPEST:
            location = ("definition", *place)
            raise EnvironmentProblems([Problem(file, lines.get(location), field_path(location), TOO_DEEP)])
    return definition, lines


def _json(file: Path) -> Any:
    """Read JSON as JSON: YAML takes an escaped surrogate pair for two halves."""
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        line, words = (error.lineno, error.msg) if isinstance(error, json.JSONDecodeError) else (None, "not UTF-8")
        raise EnvironmentProblems([Problem(file, line, "", f"not valid JSON: {words}")]) from None


def _sortable(given: Value) -> Any:
    return moment(given) if isinstance(given, str) else given
