"""Reads a YAML file into a pydantic model and says of every mistake where it stands and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Tag, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Location = tuple[str | int, ...]
Lines = dict[Location, int]
"""The line, counted from 1, at which each field of a file begins; the whole file under the empty location."""

WORDING = {
    "missing": "is missing",
    "string_type": "must be text",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "tuple_type": "must be a list, such as [a, b]",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
}


@dataclass(frozen=True)
class Problem:
    """One mistake: the file, the line where it is known, the field, what is wrong and what is allowed.

    ``str()`` is ``file:line: field: message``.
    """

    file: Path
    line: int | None
    field: str
    message: str

    def __str__(self) -> str:
        here = Path.cwd()
        file = self.file.relative_to(here) if self.file.is_relative_to(here) else self.file
        place = str(file) if self.line is None else f"{file}:{self.line}"
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class EnvironmentProblems(ValueError):
    """Mistakes in one or more environments; ``str()`` is a line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def field_path(location: Location) -> str:
    """Return a location as people write it: ``segments[0].name``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def nearest(lines: Lines, location: Location) -> Location:
    """Return as much of ``location`` as the file holds, without the parts that only the model knows."""
    found: Location = ()
    for part in location:
        if (*found, part) in lines:
            found = (*found, part)
    return found


def read_yaml(file: Path) -> tuple[dict[str, Any], Lines]:
    """Read a file that holds one mapping, and where its fields stand.

    Raises:
        EnvironmentProblems: there is no such file, it isn't YAML, or it holds something else. No
            message repeats a value of the file.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            text = text.replace("\t", " ")  # JSON may be indented by tabs, and has none inside of its texts
        root = YAML(typ="safe", pure=True).compose(text)
        lines: Lines = {(): 1}
        twice = list(_walk(root, (), lines, frozenset())) if root is not None else []
        if twice:
            raise EnvironmentProblems(
                [Problem(file, line, field_path(location), "stands there twice") for location, line in twice]
            )
        data = YAML(typ="safe", pure=True).load(text)
    except OSError as error:
        raise EnvironmentProblems([Problem(file, None, "", f"can't be read: {error.strerror}")]) from error
    except UnicodeDecodeError:
        raise EnvironmentProblems([Problem(file, None, "", "is not UTF-8 text")]) from None
    except MarkedYAMLError as error:
        # The original shows a piece of the file, where a secret may stand: its chain is cut.
        mark = error.problem_mark or error.context_mark
        raise EnvironmentProblems(
            [Problem(file, mark.line + 1 if mark else None, "", f"not valid YAML: {_without_values(error)}")]
        ) from None
    except YAMLError:
        raise EnvironmentProblems([Problem(file, None, "", "not valid YAML")]) from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise EnvironmentProblems([Problem(file, 1, "", WORDING["model_type"])])
    return data, lines


def problems_of(error: ValidationError, file: Path, lines: Lines, model: type[BaseModel]) -> list[Problem]:
    """Return what ``model`` found wrong with a file, in the order of its lines."""
    found: dict[tuple[int, str, str], list[str]] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        location = nearest(lines, detail["loc"])
        shown = location
        if detail["type"] == "extra_forbidden":
            message = _unknown_key(str(detail["loc"][-1]), _keys_at(model, detail["loc"][:-1]))
        elif detail["type"] == "missing":
            shown, message = (*location, detail["loc"][-1]), WORDING["missing"]
        else:
            plain = re.sub("^(Input|String|Tuple) should ", "must ", detail["msg"])
            message = WORDING.get(detail["type"], plain)
        place = (lines[location], field_path(shown), message if detail["type"] == "disagreement" else "")
        found.setdefault(place, []).append(message)
    # A field that may be one thing or another is refused by each; what several fields get wrong stands for itself.
    return [Problem(file, line, field, " or ".join(found[line, field, apart])) for line, field, apart in sorted(found)]


def _walk(node: Node, location: Location, lines: Lines, above: frozenset[int]) -> Iterator[tuple[Location, int]]:
    """Fill ``lines`` with everything below ``node`` and yield the keys that stand there twice."""
    if id(node) in above:  # an alias of something that it is itself a part of
        return
    inside = above | {id(node)}
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                continue
            place: Location = (*location, str(key.value))
            line = key.start_mark.line + 1
            if place in lines:
                yield place, line
            lines[place] = line
            yield from _walk(value, place, lines, inside)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*location, index)] = item.start_mark.line + 1
            yield from _walk(item, (*location, index), lines, inside)


def _without_values(error: MarkedYAMLError) -> str:
    text = ", ".join(part for part in (error.context, error.problem) if part)
    for quoted in re.finditer(r"""(["'])(.*?)\1""", text, flags=re.DOTALL):
        if len(quoted[2]) > 1 and not re.fullmatch("<[a-z ]+>", quoted[2]):
            return f"{text[: quoted.start()]}…{text[text.rindex(quoted[1]) + 1 :]}"
    return text


def _unknown_key(key: str, allowed: Sequence[str]) -> str:
    close = get_close_matches(key, allowed, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {meant}allowed: {', '.join(allowed)}"


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """Return the keys that a mapping at ``location`` may have."""
    for place, part in enumerate(location):
        for name, field in model.model_fields.items():
            if part in (name, field.alias):
                # Where a field may hold one of several models, the next part is the tag of the one that was meant.
                tag = location[place + 1] if place + 1 < len(location) else None
                model = _tagged(field.annotation, tag) or _model_in(field.annotation) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _tagged(annotation: Any, tag: object) -> type[BaseModel] | None:
    if any(isinstance(each, Tag) and each.tag == tag for each in getattr(annotation, "__metadata__", ())):
        return _model_in(annotation)
    return next(filter(None, (_tagged(each, tag) for each in get_args(annotation))), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
