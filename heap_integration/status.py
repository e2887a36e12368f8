"""Where an environment stands, in numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import Window
from heap_integration.events.outbound import FLOW
from heap_integration.exports.quota import Quota
from heap_integration.heap.plans import PLANS
from heap_integration.hub import Hub
from heap_integration.routes import routes
from heap_integration.segments.heap_segments import waiting_pages
from heap_integration.warehouse.events import accepted_profiles, reasons
from heap_integration.warehouse.memberships import acknowledged_changes, baseline_size, last_runs


def read_status(hub: Hub) -> dict[str, Any]:
    """Return counts since the beginning, reasons, the last sync of each segment, the quota used, the exports' month."""
    balance = hub.balance()
    with hub.warehouse.read() as con:
        why = reasons(con)
        runs = {str(run["sync"]): run for run in last_runs(con)}
        added, removed, updated = acknowledged_changes(con)
        held = baseline_size(con)
        profiles = accepted_profiles(con)
    waiting, problems = hub.waiting_inputs()
    heap = hub.environment.heap
    window = Window(heap.events_per_minute, 60.0)
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return {
        "environment": hub.environment.name,
        "events": balance.numbers,
        "profiles": profiles,
        "faults": balance.faults,
        "unreadable": list(dict.fromkeys([*problems, *hub.unreadable()])),
        "reasons": [{"outcome": outcome, "reason": reason, "rows": rows} for outcome, reason, rows in why],
        "segments": [
            _segment(route.sync.name, route.destination, runs.get(route.name)) for route in routes(hub.environment)
        ],
        "quota": {
            "events_per_minute": heap.events_per_minute,
            "events_last_minute": Pace(hub.store, FLOW, [window]).used(window),
            "events_this_month": Ledger(hub.store, FLOW).sent_since(month.timestamp()),
        },
        "exports": _exports(hub),
        "members": {"added": added, "removed": removed, "updated": updated, "now": held},
        "waiting": {
            "landed segments": len(hub.arrivals.waiting()),
            "files and tables": len(waiting),
            "segment pages": waiting_pages(hub.store)[0],
        },
    }


def _exports(hub: Hub) -> dict[str, Any] | None:
    """Return the plan's month as the exports have left it; no warehouse is asked."""
    if not any(export.enabled for export in hub.environment.exports):
        return None
    outlook = Quota(hub.store, PLANS[hub.environment.heap.plan]).outlook(datetime.now(UTC))
    return {
        "month": outlook.month,
        "rows": outlook.rows,
        "limit": outlook.plan.rows_a_month,
        "warning": outlook.warning,
    }


def _segment(name: str, destination: str, run: dict[str, Any] | None) -> dict[str, Any]:
    numbers = ("added", "removed", "updated", "unchanged", "rejected", "pending", "held")
    return {
        "segment": name,
        "destination": destination,
        "finished_at": run["finished_at"].isoformat(" ", "seconds") if run else None,
        **{number: run[number] if run else 0 for number in numbers},
    }
