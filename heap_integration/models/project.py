"""The dbt project at work for one environment: its profile, its variables, its folder, and how dbt is called."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from heap_integration.environment import Environment
from heap_integration.models.run import Invocation, Model, ModelsReport, NodeResult, read_models, run_dbt
from heap_integration.models.variables import HeapTables, find_heap_tables, model_variables
from heap_integration.warehouse.systems.duckdb import DuckDBSettings
from heap_integration.warehouse.systems.system import Surroundings

PROFILE = "heap_integration"
# As `python -m dbt.cli.main`, without Python's warning about its being imported already.
DBT = ("-c", "from dbt.cli.main import cli; cli()")
FOLDER = Path(__file__).parents[2] / "dbt_project"
# Only what a program needs to run, and what the profile names: dbt writes what it finds to its logs.
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GOOGLE_APPLICATION_CREDENTIALS",
)


@dataclass(frozen=True)
class DbtProject:
    """The dbt models of one environment.

    Raises:
        ModelsError: dbt can't run, with its own words.
        MissingSecret: the variable of a credential isn't set.
        WarehouseError: the warehouse can't be reached.
    """

    environment: Environment
    surroundings: Surroundings
    folder: Path = FOLDER

    @property
    def working(self) -> Path:
        """The folder of the environment's profile, artifacts and logs, beside the hub's own tables."""
        return self.surroundings.own.path.parent / self.environment.name / "dbt"

    @property
    def target(self) -> Path:
        """The folder of dbt's artifacts: ``manifest.json``, ``run_results.json`` and the compiled SQL."""
        return self.working / "target"

    def manifest(self) -> dict[str, Any]:
        """Return dbt's manifest of the last call."""
        manifest: dict[str, Any] = json.loads((self.target / "manifest.json").read_text())
        return manifest

    def prepare(self) -> Path:
        """Write the profile, which names its secrets and holds none, and return the folder in which it lies."""
        self.working.mkdir(parents=True, exist_ok=True, mode=0o700)
        output = self.environment.warehouse.dbt_output(self.surroundings)
        if isinstance(self.environment.warehouse, DuckDBSettings):
            output["config_options"]["memory_limit"] = f"{self.environment.models.memory_mb}MB"
        profile = {PROFILE: {"target": self.environment.name, "outputs": {self.environment.name: output}}}
        # JSON is YAML, and needs no writer of its own.
        (self.working / "profiles.yml").write_text(json.dumps(profile, indent=2))
        return self.working

    def heap_tables(self) -> HeapTables:
        """Return which of Heap's tables the warehouse has."""
        with self.environment.warehouse.connect(self.surroundings) as connection:
            return find_heap_tables(self.environment, connection)

    def variables(self, *, as_of: date | None = None, days: tuple[date, date] | None = None) -> dict[str, Any]:
        """Return dbt's variables, as they are now; see ``model_variables``."""
        return model_variables(self.environment, self.heap_tables(), as_of=as_of, days=days)

    def process_environment(self) -> dict[str, str]:
        """Return the variables of dbt's process: what any program needs, and the warehouse's credentials."""
        secrets = self.environment.warehouse.secrets().values()
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return inherited | {secret.env: secret.value(self.surroundings.variables) for secret in secrets}

    def invocation(self, command: str, arguments: Sequence[str], variables: Mapping[str, Any]) -> Invocation:
        """Return one call of dbt, which waits until nobody else has the warehouse where that is a file."""
        place = [
            f"--project-dir={self.folder}",
            f"--profiles-dir={self.prepare()}",
            f"--target-path={self.target}",
            f"--log-path={self.working / 'logs'}",
            f"--vars={json.dumps(variables)}",
        ]
        call = ["--log-format=json", "--log-level-file=none", "--no-use-colors", command, *place, *arguments]
        return Invocation((sys.executable, *self._program(), *call), self.process_environment(), self.target)

    def _program(self) -> tuple[str, ...]:
        warehouse = self.environment.warehouse
        if isinstance(warehouse, DuckDBSettings):
            return ("-m", "heap_integration.models.leased", warehouse.url)
        return DBT

    def build(
        self,
        select: Sequence[str] = (),
        *,
        exclude: Sequence[str] = (),
        as_of: date | None = None,
        days: tuple[date, date] | None = None,
        full_refresh: bool = False,
        tests: bool = True,
        progress: Callable[[NodeResult], None] = lambda _: None,
    ) -> ModelsReport:
        """Build models, each followed by its tests, and return what became of every one.

        ``select`` and ``exclude`` are dbt's own. ``days`` and ``as_of`` are as in ``model_variables``. A model that
        fails leaves its table as it was, and those that depend on it out. The worked examples run by ``test`` alone:
        they are about the models' code, not about what is in the warehouse.
        """
        arguments = ["--indirect-selection=buildable", *_option("--select", select), *_option("--exclude", exclude)]
        if full_refresh:
            arguments.append("--full-refresh")
        if tests:
            arguments.append("--exclude-resource-type=unit_test")
        command = "build" if tests else "run"
        return self._run(command, arguments, self.variables(as_of=as_of, days=days), progress)

    def test(self, select: Sequence[str] = (), progress: Callable[[NodeResult], None] = lambda _: None) -> ModelsReport:
        """Run the tests of models on their tables as they are, and the worked examples."""
        return self._run("test", _option("--select", select), self.variables(), progress)

    def models(self) -> list[Model]:
        """Return all models, in the order of their layers and names; the warehouse isn't touched."""
        run_dbt(self.invocation("parse", (), model_variables(self.environment, HeapTables())))
        return read_models(self.target)

    def _run(
        self,
        command: str,
        arguments: Sequence[str],
        variables: Mapping[str, Any],
        progress: Callable[[NodeResult], None],
    ) -> ModelsReport:
        with self._alone():
            return run_dbt(self.invocation(command, arguments, variables), progress)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other calls out of the folder of the artifacts, which dbt writes over; they wait."""
        self.working.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.working / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _option(name: str, values: Sequence[str]) -> list[str]:
    return [name, *values] if values else []
