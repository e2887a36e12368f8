"""The questions of the marts' pictures are put in the words of every warehouse."""

from __future__ import annotations

import pytest
from sqlglot import exp, parse_one

from heap_integration.assets.pictures import PICTURES
from heap_integration.warehouse.systems.system import Dialect


@pytest.mark.filterwarnings("ignore:.*NULLS LAST.*")
@pytest.mark.parametrize(
    ("dialect", "table"),
    [
        ("postgres", '"shop"."lab_models"."t"'),
        ("bigquery", "`acme-shop`.`lab_models`.`t`"),
        ("snowflake", "SHOP.lab_models.t"),
        ("redshift", '"shop"."lab_models"."t"'),
        ("tsql", '"shop"."lab_models"."t"'),
    ],
)
def test_a_picture_asks_in_the_words_of_the_warehouse(dialect: Dialect, table: str) -> None:
    for name, picture in PICTURES.items():
        asked = parse_one(picture.question(dialect, table), dialect=dialect)
        wanted = exp.to_table(table, dialect=dialect)
        tables = [found for found in asked.find_all(exp.Table) if found.args.get("db")]
        assert tables, name
        assert all([part.name for part in found.parts] == [part.name for part in wanted.parts] for found in tables)
        assert all(found.this.quoted == wanted.this.quoted or dialect == "tsql" for found in tables), name
        assert not [place for group in asked.find_all(exp.Group) for place in group.find_all(exp.Literal)], name
        assert not list(asked.find_all(exp.Interval)), name
