"""What a planned row of profiles tells the destination: the attributes that differ from what was acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import orjson

from heap_integration.delivery.records import AttributeChange, ProfileChange, Unfit
from heap_integration.segments.columns import LARGEST_NUMBER
from heap_integration.segments.wanted import Action
from heap_integration.sync_settings import ProfileField

# of a planned row: action, identity, properties wanted, properties acknowledged
ProfilePayload = Callable[[int, str, str | None, str | None], ProfileChange | None]


def profile_change(fields: Mapping[str, ProfileField]) -> ProfilePayload:
    """Return what turns a planned row into a ``ProfileChange``, or ``None`` where it leaves nothing to tell.

    ``fields`` are the sync's, by column; attributes of other names are set. A row that is added tells all that is
    wanted, also what was acknowledged, but of a number only its growth. An attribute that isn't wanted any more,
    because its field was renamed or left out, is left alone. Of a row that is removed, our attributes are taken back.

    What is returned raises ``Unfit`` for a row that can't go out.
    """
    named = {field.to: field for field in fields.values()}

    def change(action: int, identity: str, properties: str | None, previous: str | None) -> ProfileChange | None:
        before = _object(previous)
        before = before if isinstance(before, dict) else {}
        leaving = action == Action.REMOVE
        if leaving:
            changes = [each for name, last in before.items() for each in _taken_back(_field(named, name), last)]
        else:
            wanted = _object(properties)
            if not isinstance(wanted, dict):
                raise Unfit(wanted)
            again = action == Action.ADD
            changes = [
                each
                for name, value in wanted.items()
                for each in _told(_field(named, name), value, before, again=again)
            ]
        return ProfileChange(identity, tuple(changes), leaving) if changes else None

    return change


def _field(named: Mapping[str, ProfileField], name: str) -> ProfileField:
    return named.get(name) or ProfileField(to=name)


def _object(text: str | None) -> Any:
    return orjson.loads(text) if text else {}


def _told(field: ProfileField, value: Any, before: Mapping[str, Any], *, again: bool) -> Iterator[AttributeChange]:
    name, last = field.to, before.get(field.to)
    total = (value or 0) if field.operation == "add" else None
    if value is None:
        if again or last is not None or name not in before:
            yield AttributeChange(name, "clear" if field.when_null == "clear" else "set", None, total)
    elif last is not None and not _goes_on(field, last):
        yield AttributeChange(name, "set", value, total)
    elif field.operation == "set_once":
        if again or last is None:
            yield AttributeChange(name, "set_once", value)
    elif field.operation == "add":
        growth = _growth(value, last or 0)
        if growth or last is None or again:
            yield AttributeChange(name, "add", growth, total)
    elif field.operation == "append":
        yield from _entries(name, value, last or [], again=again)
    elif again or last is None or not _same(value, last):
        yield AttributeChange(name, "set", value)


def _goes_on(field: ProfileField, last: Any) -> bool:
    """Say whether an operation can go on from what is there, which another type or operation may have written."""
    kinds = {"add": (int, float), "append": (list,)}.get(field.operation)
    return kinds is None or type(last) in kinds


def _entries(name: str, value: list[Any], last: list[Any], *, again: bool) -> Iterator[AttributeChange]:
    if gone := _without(last, value):
        yield AttributeChange(name, "remove", gone)
    if come := value if again else _without(value, last):
        yield AttributeChange(name, "append", come)


def _taken_back(field: ProfileField, last: Any) -> Iterator[AttributeChange]:
    """Yield what undoes an attribute, as far as it is ours: nobody knows whose value a ``set_once`` has found."""
    if last is None or field.operation == "set_once":
        return
    if field.operation == "set" or not _goes_on(field, last):
        yield AttributeChange(field.to, "clear")
    elif last and field.operation == "add":
        yield AttributeChange(field.to, "add", _growth(0, last), 0)
    elif last:
        yield AttributeChange(field.to, "remove", last)


def _growth(value: float, last: float) -> float:
    # 0.3 - 0.1 is 0.2, as people write it
    growth = Decimal(str(value)) - Decimal(str(last))
    return int(growth) if growth % 1 == 0 and abs(growth) <= LARGEST_NUMBER else float(growth)


def _without(entries: list[Any], others: list[Any]) -> list[Any]:
    known = {orjson.dumps(entry) for entry in others}
    return [entry for entry in entries if orjson.dumps(entry) not in known]


def _same(value: Any, last: Any) -> bool:
    # to Python, true is 1
    return orjson.dumps(value) == orjson.dumps(last)
