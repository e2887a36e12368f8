"""What the page about audiences shows is true: its definitions are read, its operators hold for what it says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from markdown_it import MarkdownIt
from ruamel.yaml import YAML
from sqlglot import exp

from heap_integration.environment import EnvironmentProblems
from heap_integration.segments.audiences.audience import Audience
from heap_integration.segments.audiences.compiler import Tables, compiled
from heap_integration.segments.audiences.definition import OPERATORS, AudienceDefinition, Group, load_definition
from heap_integration.segments.audiences.dialects import DIALECTS
from heap_integration.segments.audiences.places import OwnPlace
from heap_integration.segments.audiences.settings import AudienceSettings, UsersTable
from heap_integration.warehouse import Warehouse

PAGE = Path(__file__).resolve().parents[3] / "docs" / "audiences.md"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOKENS = MarkdownIt("commonmark").enable("table").parse(PAGE.read_text("utf-8"))
FENCES = [(token.info, token.content) for token in TOKENS if token.type == "fence"]
DEFINITIONS = [(kind, text) for kind, text in FENCES if kind in ("json", "yaml") and "definition" in text]
SETTINGS = next(text for kind, text in FENCES if kind == "yaml" and text.startswith("audiences:"))


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table whose first heading is this, cell by cell."""
    found: list[list[str]] = []
    for token in TOKENS:
        if token.type == "table_open":
            found = []
        elif token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and found:
            found[-1].append(token.content)
        elif token.type == "table_close" and found[0][0] == heading:
            return found[1:]
    raise AssertionError(heading)


@pytest.mark.parametrize(("kind", "text"), DEFINITIONS, ids=range(len(DEFINITIONS)))
def test_the_definitions_shown_become_sql_of_every_engine(tmp_path: Path, kind: str, text: str) -> None:
    file = tmp_path / f"shown.{kind}"
    file.write_text(text)
    definition, _ = load_definition(file)
    settings = AudienceSettings.model_validate(YAML(typ="safe").load(SETTINGS)["audiences"])
    segments = {name: exp.select("identity").from_("members") for name in definition.segment_names()}
    for dialect in DIALECTS:
        assert compiled(definition.definition, Tables(settings, segments=segments), dialect, NOW)


def test_every_condition_and_every_operator_is_told() -> None:
    assert [row[0].strip("`") for row in table("Condition")] == list(Group.model_fields)
    assert [row[0].strip("`") for row in table("Operator")] == list(OPERATORS)
    shown = "".join(text for _, text in DEFINITIONS)
    assert all(name in shown for name in Group.model_fields if name != "all")


@pytest.mark.parametrize("row", table("Operator"), ids=lambda row: row[0])
def test_an_operator_holds_for_what_the_page_says(row: list[str]) -> None:
    operator, example, holds, fails = row
    asked = YAML(typ="safe").load(example.strip("`"))
    assert operator.strip("`") in (asked if isinstance(asked, dict) else {"eq": asked})
    given = [[json.loads(text) for text in re.findall("`([^`]+)`", cell)] for cell in (holds, fails)]
    assert all(given)
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("create table people (identity text, properties text)")
        for number, value in enumerate(each for side in given for each in side):
            con.execute("insert into people values (?, ?)", [str(number), json.dumps({"asked": value})])
        group = Group.model_validate({"user_properties": {"asked": asked}})
        tables = Tables(AudienceSettings(users=UsersTable(table="people")))
        found = con.execute(compiled(group, tables, "duckdb", NOW)).fetchall()
    assert sorted(int(who) for (who,) in found) == list(range(len(given[0])))


def test_the_mistakes_shown_are_told_in_these_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cart_abandoners.json"
    shown = next(text for kind, text in FENCES if kind == "json")
    unknown_event, unknown_key = next(text for kind, text in FENCES if kind == "text").splitlines()

    def told(text: str) -> str:
        file.write_text(text)
        warehouse = Warehouse(f"duckdb:///{tmp_path}/hub.duckdb")
        with warehouse.write() as con:
            con.execute(
                "create or replace table happened as select 'ann' as identity, 'Add to Cart' as event,"
                " now()::timestamp as time, '{\"cart_value\": 1}' as properties union all by name"
                " select 'ann' as identity, 'Purchase' as event, now()::timestamp as time, '{}' as properties"
            )
        events: Any = {"table": "happened"}
        with pytest.raises(EnvironmentProblems) as caught, warehouse.read() as con:
            Audience.load(file, "shown", AudienceSettings(events=events)).check(OwnPlace(con))
        return str(caught.value)

    assert told(shown.replace("Add to Cart", "Add to Card")) == unknown_event
    assert told(shown.replace('}, "within_days"', '}, "within_day"')) == unknown_key


def test_a_definition_says_nothing_but_what_the_page_tells() -> None:
    assert list(AudienceDefinition.model_fields) == ["name", "description", "definition"]
