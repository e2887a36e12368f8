"""Commands that build, test and list the dbt models of an environment."""

from __future__ import annotations

from datetime import date
from itertools import count
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from heap_integration.cli.terminal import (
    FAILURE,
    JsonOption,
    app,
    err,
    open_environment,
    out,
    plain,
    print_counts,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from heap_integration.models.run import ModelsReport, NodeResult

models = typer.Typer(
    name="models",
    help="Build the dbt models of an environment, run their tests, list what there is.",
    no_args_is_help=True,
)
app.add_typer(models)

EnvironmentArgument = Annotated[str, typer.Argument(help="The name of a folder under environments/.")]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select", "-s", help="Only these, as dbt names them: a model, +model, marts ...", show_default=False
    ),
]


@models.command()
def build(
    environment: EnvironmentArgument,
    select: SelectOption = None,
    from_day: Annotated[
        str | None, typer.Option("--from", help="The first UTC day to compute again, such as 2026-01-02.")
    ] = None,
    to_day: Annotated[str | None, typer.Option("--to", help="The last UTC day to compute again.")] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The last UTC day that counts; without it, today.")
    ] = None,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Compute all days of the models that are kept by day.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build models and run their tests. Models kept by day compute the days that have changed, or those asked for."""
    days = _days(from_day, to_day)
    with open_environment(environment) as hub, progress(as_json) as show:
        done = count(1)

        def tell(result: NodeResult) -> None:
            show(result.name, next(done), None)

        hub.publish()
        report = hub.models().build(
            select or (), as_of=_day("--as-of", as_of), days=days, full_refresh=full_refresh, progress=tell
        )
    _print(_found(report, select, environment), as_json)


@models.command(name="test")
def run_tests(environment: EnvironmentArgument, select: SelectOption = None, as_json: JsonOption = False) -> None:
    """Run the tests of the models as their tables are."""
    with open_environment(environment) as hub:
        report = hub.models().test(select or ())
    _print(_found(report, select, environment), as_json)


@models.command(name="list")
def list_models(environment: EnvironmentArgument, as_json: JsonOption = False) -> None:
    """List the models with what they are about."""
    with open_environment(environment) as hub:
        found = hub.models().models()
    if as_json:
        print_json([{**vars(model), "columns": dict(model.columns)} for model in found])
        return
    table = Table("model", "layer", "kept as", "what it is")
    for model in found:
        kept = "by day" if model.is_by_day else model.materialized
        table.add_row(model.name, model.layer, kept, plain(model.description))
    out.print(table)


def _found(report: ModelsReport, select: list[str] | None, environment: str) -> ModelsReport:
    if select and not report.results:
        raise ValueError(f"nothing is called {' '.join(select)}; see heap-integration models list {environment}")
    return report


def _print(report: ModelsReport, as_json: bool) -> None:
    if as_json:
        rows = [
            {"kind": each.kind, "name": each.name, "status": each.status, "seconds": each.seconds, "rows": each.rows}
            for each in report.results
        ]
        print_json({"seconds": report.seconds, "results": rows, "problems": report.problems()})
    else:
        print_counts(f"dbt, {report.seconds:.1f} s", report.counts())
        for problem in report.problems():
            err.print(f"[red]failed[/] {plain(problem)}", highlight=False)
    if report.failed:
        raise typer.Exit(FAILURE)


def _days(first: str | None, last: str | None) -> tuple[date, date] | None:
    one, other = _day("--from", first), _day("--to", last)
    if one is None and other is None:
        return None
    if one is None or other is None or one > other:
        raise ValueError("--from and --to go together: the first and the last day, in this order")
    return one, other


def _day(option: str, given: str | None) -> date | None:
    if given is None:
        return None
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise ValueError(f"{option} is {given!r}: wanted is a day such as 2026-01-02") from None
