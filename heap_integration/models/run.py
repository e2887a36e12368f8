"""Calls dbt in a process of its own and reads what became of each model and test."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAILED = ("error", "fail", "runtime error", "partial success")
LAYERS = ("staging", "intermediate", "marts")
SHOWN_ERRORS = 5


class ModelsError(ValueError):
    """dbt could not begin: the project, a setting or the connection is wrong; the message has dbt's own words."""


@dataclass(frozen=True)
class Invocation:
    """One call of dbt: its command line, the variables of its process (with credentials), and its artifacts' folder."""

    command: tuple[str, ...]
    variables: Mapping[str, str] = field(repr=False)
    target: Path


@dataclass(frozen=True)
class NodeResult:
    """What became of a model, a test or another node of the project.

    ``status`` is dbt's: success or pass, warn, skipped, or error or fail. ``rows`` are those that the statement wrote,
    where the warehouse tells; ``failures`` are the rows that a test found.
    """

    unique_id: str
    status: str
    seconds: float
    rows: int | None = None
    failures: int | None = None
    message: str = ""

    @property
    def kind(self) -> str:
        """What it is: ``model``, ``test``, ``unit_test`` ..."""
        return self.unique_id.split(".", 1)[0]

    @property
    def name(self) -> str:
        """Its name in the project."""
        return self.unique_id.split(".")[2]

    @property
    def has_failed(self) -> bool:
        """Whether it is what its author wants to know of."""
        return self.status in FAILED


@dataclass(frozen=True)
class ModelsReport:
    """What one call of dbt did."""

    results: tuple[NodeResult, ...]
    seconds: float

    @property
    def failed(self) -> tuple[NodeResult, ...]:
        """The models and tests that failed."""
        return tuple(result for result in self.results if result.has_failed)

    def counts(self) -> dict[str, int]:
        """Return how many models and tests ended in each state; exposures, of which nothing is run, don't count."""
        return dict(Counter(result.status for result in self.results if result.status != "no-op"))

    def problems(self) -> list[str]:
        """Return in words what failed."""
        return [f"{result.kind} {result.name}: {result.message or result.status}" for result in self.failed]


@dataclass(frozen=True)
class Model:
    """A model as the project describes it; ``columns`` are its columns' descriptions."""

    name: str
    layer: str
    materialized: str
    description: str
    columns: Mapping[str, str]

    @property
    def is_by_day(self) -> bool:
        """Whether it is kept by day, so that single days of it can be computed again."""
        return self.materialized == "incremental"


def run_dbt(invocation: Invocation, progress: Callable[[NodeResult], None] = lambda _: None) -> ModelsReport:
    """Call dbt and return what became of each node; ``progress`` is told of each as it ends.

    Raises:
        ModelsError: nothing could be run.
    """
    found = invocation.target / "run_results.json"
    found.unlink(missing_ok=True)
    errors: list[str] = []
    with _running(invocation) as process:
        for line in process.stdout or ():
            told = _event(line)
            if told["info"].get("level") == "error":
                errors.append(str(told["info"].get("msg", "")).strip())
            result = _finished(told)
            if result:
                progress(result)
        code = process.wait()
    if not found.exists():
        if code:
            raise ModelsError(_in_words(errors, code))
        return ModelsReport((), 0.0)
    results = json.loads(found.read_text())
    return ModelsReport(tuple(_result(each) for each in results["results"]), float(results["elapsed_time"]))


def read_models(target: Path) -> list[Model]:
    """Return the models of a project that was parsed into ``target``, by layer and name."""
    nodes = json.loads((target / "manifest.json").read_text())["nodes"].values()
    models = [
        Model(
            name=node["name"],
            layer=node["fqn"][1],
            materialized=node["config"]["materialized"],
            description=node["description"],
            columns={column["name"]: column["description"] for column in node["columns"].values()},
        )
        for node in nodes
        if node["resource_type"] == "model"
    ]
    return sorted(models, key=lambda model: (LAYERS.index(model.layer), model.name))


@contextmanager
def _running(invocation: Invocation) -> Iterator[subprocess.Popen[str]]:
    """Yield the process of a call; it doesn't outlive an error or an interruption of its caller."""
    process = subprocess.Popen(  # noqa: S603
        invocation.command,
        env=dict(invocation.variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def _event(line: str) -> dict[str, Any]:
    """Return one line of dbt's log; what isn't one, as of a program that breaks down, is an error."""
    try:
        told = json.loads(line)
    except json.JSONDecodeError:
        told = None
    return told if isinstance(told, dict) and "info" in told else {"info": {"level": "error", "msg": line}, "data": {}}


def _finished(told: Mapping[str, Any]) -> NodeResult | None:
    data = told.get("data", {})
    node = data.get("node_info") or {}
    if not node.get("node_finished_at") or told["info"].get("level") == "debug":
        return None
    return NodeResult(node["unique_id"], node["node_status"], float(data.get("execution_time") or 0))


def _result(told: Mapping[str, Any]) -> NodeResult:
    rows = (told["adapter_response"] or {}).get("rows_affected")
    return NodeResult(
        unique_id=told["unique_id"],
        status=told["status"],
        seconds=float(told["execution_time"]),
        rows=int(rows) if rows is not None and int(rows) >= 0 else None,
        failures=told["failures"],
        message=(told["message"] or "").strip(),
    )


def _in_words(errors: list[str], code: int) -> str:
    said = [error for error in errors if error]
    if any(error.startswith("Traceback") for error in said):
        # What went wrong stands at the end of one.
        return said[-1]
    return "\n".join(said[:SHOWN_ERRORS]) if said else f"dbt ended with code {code} and said nothing"
