"""Userflow's list of segments: everybody, and those that attributes of users make up."""

from __future__ import annotations

import re
from typing import Any

from heap_integration.sandbox.state import State

PREFIX = "heap_segment"
SAMPLE = 5


class Segments:
    """Segments as Userflow's own page would list them; its public API knows none."""

    def __init__(self, state: State) -> None:
        self.state = state

    def all(self, app_id: str, prefix: str = PREFIX) -> list[dict[str, Any]]:
        """Return the segments that boolean attributes, and entries of list attributes, with that prefix make up.

        ``name`` is Heap's own where a segment of Heap has that slug, else the slug in words.
        """
        names = {
            _slug(row["name"]): row["name"]
            for row in self.state.rows("SELECT name FROM heap_segments WHERE app_id = ?", app_id)
        }
        rows = self.state.rows(
            "SELECT attribute.key AS name, entry.value AS entry, sum(attribute.type <> 'false') AS users"
            " FROM userflow_objects, json_each(data, '$.attributes') AS attribute"
            " LEFT JOIN json_each("
            "CASE attribute.type WHEN 'array' THEN attribute.value ELSE '[]' END) AS entry"
            " WHERE app_id = ? AND kind = 'user' AND substr(attribute.key, 1, ?) = ?"
            " AND (attribute.type IN ('true', 'false') OR entry.value IS NOT NULL)"
            " GROUP BY 1, 2 ORDER BY 1, 2",
            app_id,
            len(prefix),
            prefix,
        )
        return [self._segment(app_id, row["name"], row["entry"], row["users"], names) for row in rows]

    def sample(self, app_id: str, attribute: str | None = None, entry: Any = None) -> list[str]:
        """Return some members of a segment; of everybody where no attribute is given."""
        condition, values = "", []
        if attribute is not None:
            is_on = (
                "attribute.type = 'true'"
                if entry is None
                else "EXISTS (SELECT 1 FROM json_each(attribute.value) WHERE value = ?)"
            )
            carried = f"SELECT 1 FROM json_each(data, '$.attributes') AS attribute WHERE key = ? AND {is_on}"
            condition, values = f" AND EXISTS ({carried})", [attribute] if entry is None else [attribute, entry]
        rows = self.state.rows(
            f"SELECT id FROM userflow_objects WHERE app_id = ? AND kind = 'user'{condition} ORDER BY seq LIMIT ?",
            app_id,
            *values,
            SAMPLE,
        )
        return [row["id"] for row in rows]

    def _segment(self, app_id: str, attribute: str, entry: Any, users: int, names: dict[str, str]) -> dict[str, Any]:
        slug = attribute.removeprefix(f"{PREFIX}_") if entry is None else str(entry)
        return {
            "attribute": attribute,
            "entry": entry,
            "users": users,
            "name": names.get(slug, slug.replace("_", " ").capitalize()),
            "sample": self.sample(app_id, attribute, entry) if users else [],
        }


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
