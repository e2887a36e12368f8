"""A project folder with one environment, and a file of Segment-style calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from heap_integration.sandbox.settings import DEVELOPMENT

ENVIRONMENT = """\
heap:
  app_id: "{app_id}"
  base_url: {url}
  events_per_minute: {per_minute}
  events_per_minute_per_identity: {per_minute_per_identity}
"""
NO_LIMIT = 1_000_000_000


def write_project(
    root: Path,
    url: str,
    *,
    name: str = "test",
    per_minute: int = NO_LIMIT,
    per_minute_per_identity: int = NO_LIMIT,
    more: str = "",
) -> Path:
    """Write ``environments/<name>/environment.yaml`` under ``root`` and return ``root``."""
    folder = root / "environments" / name
    folder.mkdir(parents=True, exist_ok=True)
    text = ENVIRONMENT.format(
        app_id=DEVELOPMENT.app_id,
        url=url,
        per_minute=per_minute,
        per_minute_per_identity=per_minute_per_identity,
    )
    (folder / "environment.yaml").write_text(text + more)
    return root


def call(number: int, **changes: Any) -> dict[str, Any]:
    """Return a track call; a field set to ``None`` is left out."""
    made = {
        "type": "track",
        "event": f"Step {number % 7}",
        "userId": f"user {number % 1_000}",
        "messageId": f"message-{number}",
        "timestamp": f"2026-01-{number % 5 + 1:02}T03:04:05.678Z",
        "properties": {"number": number, "page": {"path": f"/{number % 50}"}},
    }
    return {field: value for field, value in (made | changes).items() if value is not None}


def write_lines(file: Path, lines: Iterable[str | dict[str, Any]]) -> Path:
    """Write an NDJSON file; text goes in as it is."""

    def texts() -> Iterator[str]:
        for line in lines:
            yield (line if isinstance(line, str) else json.dumps(line)) + "\n"

    with file.open("w") as target:
        target.writelines(texts())
    return file
