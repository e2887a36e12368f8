"""What the dbt project holds, without any warehouse: for what is listed before anything runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from heap_integration.models.project import DBT, FOLDER, INHERITED
from heap_integration.models.run import Invocation, run_dbt
from heap_integration.models.variables import EventsFrom

PARTS = ("dbt_project.yml", "models/**/*", "macros/**/*", "tests/**/*")
# For parsing alone: nothing is opened.
PROFILE = {"heap_integration": {"target": "none", "outputs": {"none": {"type": "duckdb", "path": ":memory:"}}}}


@cache
def project_manifest(events: EventsFrom, folder: Path = FOLDER) -> dict[str, Any]:
    """Return dbt's manifest of the project; it is made anew only if a file of the project, or dbt, has changed.

    ``events`` is whose events the models are about: it decides which models depend on which.

    Raises:
        ModelsError: the project is wrong, with dbt's own words.
    """
    place = _cache(folder)
    cached = place / f"{events}-{_digest(folder)}.json"
    with (place / "lock").open("w") as lock:
        # Several code locations load at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.exists():
            _parse(folder, events, cached)
            for old in place.glob(f"{events}-*.json"):
                if old != cached:
                    old.unlink()
        manifest: dict[str, Any] = json.loads(cached.read_text())
    return manifest


def _cache(folder: Path) -> Path:
    place = folder / "target" / "listed"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _own_cache(folder)
    return place if os.access(place, os.W_OK) else _own_cache(folder)


def _own_cache(folder: Path) -> Path:
    """Return a place for the manifests of an installation that only its administrator may write to."""
    users = Path(tempfile.gettempdir()) / f"heap-integration-{os.getuid()}"
    users.mkdir(mode=0o700, exist_ok=True)
    if users.is_symlink() or users.stat().st_uid != os.getuid():
        # Somebody else has made it, and what lies there isn't to be believed.
        users = Path(tempfile.mkdtemp(prefix="heap-integration-"))
    place = users / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    place.mkdir(exist_ok=True)
    return place


def _digest(folder: Path) -> str:
    files = sorted({file for part in PARTS for file in folder.glob(part) if file.is_file()})
    digest = hashlib.sha256(f"dbt-core {version('dbt-core')}\0".encode())
    for file in files:
        digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _parse(folder: Path, events: EventsFrom, cached: Path) -> None:
    with tempfile.TemporaryDirectory() as working:
        Path(working, "profiles.yml").write_text(json.dumps(PROFILE))
        place = ["--project-dir", str(folder), "--profiles-dir", working, "--log-path", working]
        place += ["--target-path", working, "--vars", json.dumps({"events_from": events})]
        call = ["--log-format=json", "--log-level-file=none", "--no-use-colors", "parse", *place]
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        run_dbt(Invocation((sys.executable, *DBT, *call), inherited, Path(working)))
        partial = cached.with_suffix(".part")
        partial.write_bytes(Path(working, "manifest.json").read_bytes())
        partial.replace(cached)
