"""The models that exports read, in any warehouse, with events as a test wants them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa

from heap_integration.exports.exporting import Exporter
from heap_integration.exports.notes import rows_of
from heap_integration.exports.settings import Export
from heap_integration.heap.plans import PLANS, Plan
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse
from heap_integration.warehouse.names import relation, spelt, translated
from heap_integration.warehouse.systems.system import Connection, Surroundings, WarehouseSettings

MODEL = Path(__file__).parents[2] / "dbt_project/models/marts/export_events.sql"
TEXTS = ("page_url", "page_title", "referrer", "device_type", "browser", "platform", "country", "region", "city")
EVENTS = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("event_name", pa.string()),
        ("occurred_at", pa.timestamp("us")),
        ("event_day", pa.date32()),
        ("arrived", pa.int64()),
        ("properties", pa.string()),
        *((name, pa.string()) for name in TEXTS),
    ]
)
USERS = pa.schema([("user_id", pa.string()), ("properties", pa.string())])
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)


def event(number: int, **changes: Any) -> dict[str, Any]:
    """Return an event that arrived as the ``number``-th, on the 10th of May unless told otherwise."""
    day = changes.pop("day", date(2026, 5, 10))
    made = {
        "event_id": f"e{number}",
        "user_id": f"u{number % 5}",
        "session_id": f"s{number}",
        "event_name": ("Visit", "Purchase")[number % 2],
        "occurred_at": datetime.combine(day, time(3, 4, 5, 678900)),
        "event_day": day,
        "arrived": number,
        "properties": json.dumps({"number": number, "note": "ä 'quoted' \"text\"", "nothing": None}),
        **dict.fromkeys(TEXTS, "somewhere"),
    }
    return made | changes


@dataclass(frozen=True)
class Models:
    """A warehouse with the models, and where exports of them keep what they keep."""

    settings: WarehouseSettings
    folder: Path

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings("test", Warehouse(f"duckdb:///{self.folder}/own.duckdb"), {"HEAP_PASSWORD": "secret"})

    def store(self) -> Store:
        return Store(f"sqlite:///{self.folder}/store.db")

    def connect(self) -> Connection:
        return self.settings.connect(self.surroundings)

    def write(self, events: Iterable[dict[str, Any]]) -> None:
        """Put events in the place of those that are there, each user with a plan."""
        rows = list(events)
        users = [{"user_id": f"u{number}", "properties": json.dumps({"plan": f"plan {number}"})} for number in range(5)]
        schema, dialect = self.settings.schemas().models, self.settings.dialect
        sql = re.sub(r"{{ config.*?}}", "", MODEL.read_text())
        sql = translated(re.sub(r"{{ ref\('(\w+)'\) }}", rf"{schema}.\1", sql), dialect)
        view = relation(schema, "export_events", dialect)
        with self.connect() as con:
            if con.columns(schema, "export_events"):
                con.run([f"drop view {view}"])
            con.load(schema, "int_events", [pa.RecordBatch.from_pylist(rows, schema=EVENTS)], EVENTS)
            con.load(schema, "int_users", [pa.RecordBatch.from_pylist(users, schema=USERS)], USERS)
            con.run([f"create view {view} as {sql}"])

    def exporter(self, export: Export, plan: Plan = PLANS["premier"], *, now: datetime = NOON, **more: Any) -> Exporter:
        """Return an export at work at a moment."""
        return Exporter(export, self.settings, self.surroundings, self.store(), plan, clock=lambda: now, **more)

    def exported(self, export: Export, columns: Sequence[str] = ("event_id",)) -> list[tuple[Any, ...]]:
        """Return what an export's table holds, ordered."""
        target = export.to or self.settings
        with target.connect(self.surroundings) as con:
            table = relation(target.schemas().exports, export.table, target.dialect)
            names = ", ".join(spelt(each, target.dialect) for each in columns)
            return sorted(rows_of(con, f"select {names} from {table}"))
