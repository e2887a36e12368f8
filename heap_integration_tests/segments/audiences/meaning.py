"""Who belongs to an audience, said in pandas straight from what a definition means, without any SQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda found, given: found == given,
    "ne": lambda found, given: found != given,
    "gt": lambda found, given: found > given,
    "gte": lambda found, given: found >= given,
    "lt": lambda found, given: found < given,
    "lte": lambda found, given: found <= given,
    "between": lambda found, given: given[0] <= found <= given[1],
}


@dataclass(frozen=True)
class World:
    """What is known: events (identity, event, time in UTC, properties), and the rest by identity."""

    events: pd.DataFrame
    users: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Mapping[str, Any]]
    segments: Mapping[str, frozenset[str]]

    def members(self, definition: Mapping[str, Any], as_of: datetime) -> set[str]:
        """Return who belongs to a group of conditions at a moment."""
        seen = self.events[self.events.time < as_of]
        everybody = set(seen.identity) | set(self.users)
        for group in _groups(definition):
            for name in (*group.get("segments", ()), *group.get("exclude_segments", ())):
                everybody |= self.segments[name]
            for name in group.get("models", ()):
                everybody |= set(self.models[name])
        by_identity = {str(identity): rows for identity, rows in seen.groupby("identity")}
        nothing = seen.iloc[:0]
        return {who for who in everybody if self._belongs(who, by_identity.get(who, nothing), definition, as_of)}

    def _belongs(self, who: str, events: pd.DataFrame, group: Mapping[str, Any], as_of: datetime) -> bool:
        def inner(each: Mapping[str, Any]) -> bool:
            return self._belongs(who, events, each, as_of)

        user = self.users.get(who, {})
        answers = [_enough(events, event, as_of) for event in group.get("events", ())]
        answers += [not _enough(events, event, as_of) for event in group.get("exclude_events", ())]
        answers += [_in_sequence(events, sequence, as_of) for sequence in group.get("sequences", ())]
        answers += [_at(events, once, as_of, min) for once in group.get("first", ())]
        answers += [_at(events, once, as_of, max) for once in group.get("last", ())]
        answers += [_holds(_value(user, name), asked) for name, asked in group.get("user_properties", {}).items()]
        answers += [_holds(self.models[name].get(who), asked) for name, asked in group.get("models", {}).items()]
        answers += [who in self.segments[name] for name in group.get("segments", ())]
        answers += [who not in self.segments[name] for name in group.get("exclude_segments", ())]
        answers += [inner(each) for each in group.get("all", ())]
        answers += [not inner(each) for each in group.get("none", ())]
        if "any" in group:
            answers.append(any(inner(each) for each in group["any"]))
        return all(answers)


def _groups(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    below = [each for name in ("any", "all", "none") for each in group.get(name, ())]
    return [group, *(found for each in below for found in _groups(each))]


def _such(events: pd.DataFrame, event: Mapping[str, Any], as_of: datetime) -> pd.DataFrame:
    """Return the events that a condition is about."""
    rows = events[events.event == event["type"]]
    if "within_days" in event:
        rows = rows[rows.time >= as_of - timedelta(days=event["within_days"])]
    asked = event.get("properties", {})
    held = [all(_holds(_value(found, name), each) for name, each in asked.items()) for found in rows.properties]
    return rows[pd.Series(held, index=rows.index, dtype=bool)]


def _enough(events: pd.DataFrame, event: Mapping[str, Any], as_of: datetime) -> bool:
    times = len(_such(events, event, as_of))
    count = event.get("count", {"gte": 1})
    asked = count if isinstance(count, dict) else {"eq": count}
    return all(ORDER[operator](times, given) for operator, given in asked.items())


def _at(events: pd.DataFrame, once: Mapping[str, Any], as_of: datetime, end: Callable[[Any], Any]) -> bool:
    plain = {name: given for name, given in once.items() if name != "within_days"}
    times = list(_such(events, plain, as_of).time)
    if not times:
        return False
    found, answers = end(times), []
    if "after" in once:
        answers.append(found >= _moment(once["after"]))
    if "before" in once:
        answers.append(found < _moment(once["before"]))
    if "within_days" in once:
        answers.append(found >= as_of - timedelta(days=once["within_days"]))
    if "more_than_days_ago" in once:
        answers.append(found < as_of - timedelta(days=once["more_than_days_ago"]))
    return all(answers)


def _in_sequence(events: pd.DataFrame, sequence: Mapping[str, Any], as_of: datetime) -> bool:
    """Try every way to begin, and go on with the earliest event that fits."""
    window = {"within_days": sequence["within_days"]} if "within_days" in sequence else {}
    steps = [sorted(_such(events, {**step, **window}, as_of).time) for step in sequence["steps"]]
    for first in steps[0]:
        at: Any = first
        for step in steps[1:]:
            at = next((time for time in step if at is not None and time > at), None)
        limit = sequence.get("within_days_of_first")
        if at is not None and (limit is None or at <= first + timedelta(days=limit)):
            return True
    return False


def _value(properties: Mapping[str, Any], name: str) -> Any:
    if properties.get(name) is not None or "." not in name:
        return properties.get(name)
    outer, inner = name.split(".", 1)
    within = properties.get(outer)
    return _value(within, inner) if isinstance(within, dict) else None


def _holds(found: Any, asked: Any) -> bool:
    operators = asked if isinstance(asked, dict) else {"eq": asked}
    return all(_fits(found, operator, given) for operator, given in operators.items())


def _fits(found: Any, operator: str, given: Any) -> bool:
    if operator == "exists":
        return (found is not None) == given
    if found is None or isinstance(found, list | dict):
        return False
    if operator == "contains":
        return given in _text(found)
    first = given[0] if isinstance(given, list) else given
    read = _boolean if isinstance(first, bool) else _number if isinstance(first, int | float) else _text
    if isinstance(first, str) and _moment(first):
        read = _moment
    value = read(found)
    wanted = [read(each) for each in given] if isinstance(given, list) else read(given)
    if value is None:
        return False
    if operator in ("in", "not_in"):
        return (value in wanted) == (operator == "in")
    return ORDER[operator](value, wanted)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _boolean(value: Any) -> bool | None:
    return {"true": True, "false": False}.get(_text(value))


def _number(value: Any) -> float | None:
    text = _text(value).removeprefix("+")
    try:
        read = json.loads(text) if text == text.strip() else None
    except ValueError:
        return None
    is_number = isinstance(read, int | float) and not isinstance(read, bool) and abs(read) < float("inf")
    return float(read) if is_number else None


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, str) or len(value) < 10:
        return None
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        return None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
