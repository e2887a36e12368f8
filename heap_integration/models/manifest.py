"""What the dbt project holds, without any warehouse: for what is listed before anything runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from heap_integration.models.project import FOLDER
from heap_integration.models.run import ModelsError
from heap_integration.models.variables import EventsFrom

PARTS = ("dbt_project.yml", "models/**/*", "macros/**/*", "tests/**/*")
# For parsing alone: nothing is opened.
PROFILE = {"heap_integration": {"target": "none", "outputs": {"none": {"type": "duckdb", "path": ":memory:"}}}}


@cache
def project_manifest(events: EventsFrom, folder: Path = FOLDER) -> dict[str, Any]:
    """Return dbt's manifest of the project; it is made anew only if a file of the project has changed.

    ``events`` is whose events the models are about: it decides which models depend on which.

    Raises:
        ModelsError: the project is wrong, with dbt's own words.
    """
    digest = _digest(folder)
    cached = _cache(folder) / f"{events}-{digest}.json"
    with (_cache(folder) / "lock").open("w") as lock:
        # Several code locations load at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.exists():
            _parse(folder, events, cached)
    manifest: dict[str, Any] = json.loads(cached.read_text())
    return manifest


def _cache(folder: Path) -> Path:
    place = folder / "target" / "listed"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        # An installation that only its administrator may write to.
        place = Path(tempfile.gettempdir()) / f"heap-integration-{os.getuid()}"
        place.mkdir(mode=0o700, exist_ok=True)
    return place


def _digest(folder: Path) -> str:
    files = sorted({file for part in PARTS for file in folder.glob(part) if file.is_file()})
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _parse(folder: Path, events: EventsFrom, cached: Path) -> None:
    with tempfile.TemporaryDirectory() as working:
        Path(working, "profiles.yml").write_text(json.dumps(PROFILE))
        place = ["--project-dir", str(folder), "--profiles-dir", working, "--log-path", working]
        place += ["--target-path", working, "--vars", json.dumps({"events_from": events})]
        command = [sys.executable, "-m", "dbt.cli.main", "--quiet", "parse", *place]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        made = Path(working, "manifest.json")
        if done.returncode or not made.exists():
            raise ModelsError((done.stdout + done.stderr).strip())
        partial = cached.with_suffix(".part")
        partial.write_bytes(made.read_bytes())
        partial.replace(cached)
