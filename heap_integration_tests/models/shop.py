"""A hub over events of the shared data sets, its models, and what they hold."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from heap_integration.environment import Environment
from heap_integration.hub import Hub
from heap_integration.models.run import ModelsReport

SHARED = Path(__file__).parents[3] / "shared" / "data"

EVENTS = """
insert into product_events by name
select (select coalesce(max(seq), 0) from product_events) + row_number() over (order by place) as seq,
       uuid() as event_key, '' as message_id, type, name, user_id, timestamp, timestamp::date as event_day,
       timestamp as received_at, 'file' as source, properties, traits, '{{}}' as context, '' as origin, place as line
from ({select})
"""


def data_set(name: str) -> Path:
    """Find a file of the data sets that lie beside the project, or skip the test."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not there: the shared data sets don't lie beside the project")
    return path


def hub_with_models(folder: Path, **settings: Any) -> Hub:
    """Return the hub of an environment in a folder of its own; ``settings`` are those of its models."""
    given: dict[str, Any] = {
        "name": "shop",
        "heap": {"app_id": "1"},
        "warehouse": f"duckdb:///{folder}/shop.duckdb",
        "store": f"sqlite:///{folder}/shop.db",
        "models": settings,
    }
    return Hub(Environment.model_validate(given), given["store"])


def filled_once(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder that ``fill`` has filled, once for all processes of a test run: building models takes seconds."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "filled").exists():
            fill(folder)
            (folder / "filled").touch()
    return folder


def receive(hub: Hub, select: str) -> None:
    """Add events: their type, name, user_id, timestamp, properties and traits, in the order of ``place``."""
    with hub.warehouse.write(ample=True) as con:
        con.execute(EVENTS.format(select=select))


def build(hub: Hub, as_of: date, select: Sequence[str] = (), *, tests: bool = False) -> ModelsReport:
    """Build models as of a day; nothing fails."""
    report = hub.models().build(select, as_of=as_of, tests=tests)
    assert not report.failed, report.problems()
    return report


def table(hub: Hub, name: str) -> pd.DataFrame:
    """Return the rows of a model."""
    with hub.warehouse.read(ample=True) as con:
        return con.execute(f"from models.{name}").df()


def counts(frame: pd.DataFrame, key: list[str], column: str) -> dict[tuple[Any, ...], Any]:
    """Return one column of a table by its key."""
    return {tuple(row[:-1]): row[-1] for row in frame[[*key, column]].itertuples(index=False)}
