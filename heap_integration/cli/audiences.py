"""Commands that look at audience definitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heap_integration.cli.terminal import (
    USAGE,
    EnvironmentOption,
    JsonOption,
    app,
    err,
    existing,
    open_environment,
    out,
    plain,
    print_counts,
    print_json,
)

if TYPE_CHECKING:
    from heap_integration.environment import Environment, Problem
    from heap_integration.segments.audiences.audience import Audience
    from heap_integration.segments.audiences.places import Place

audience = typer.Typer(
    name="audience",
    help="Look at audience definitions: check them, print their SQL, count who is in.",
    no_args_is_help=True,
)
app.add_typer(audience)


class DialectName(StrEnum):
    """The engines whose SQL can be printed."""

    DUCKDB = "duckdb"
    POSTGRES = "postgres"
    BIGQUERY = "bigquery"
    SNOWFLAKE = "snowflake"
    REDSHIFT = "redshift"
    TSQL = "tsql"


FileArgument = Annotated[str, typer.Argument(help="A JSON or YAML file with an audience's definition.")]
SomeEnvironmentOption = Annotated[
    str | None,
    typer.Option("--environment", "-e", help="The environment whose events, models and segments it is about."),
]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", help="The UTC day at whose end it is computed, such as 2026-01-02; today means now."),
]


@audience.command()
def sql(
    file: FileArgument,
    dialect: Annotated[DialectName, typer.Option(help="The engine.")] = DialectName.DUCKDB,
    environment: SomeEnvironmentOption = None,
    as_of: AsOfOption = None,
) -> None:
    """Print the select of an audience's members. Without an environment every property is taken from the JSON."""
    from heap_integration.segments.audiences.audience import end_of

    moment = end_of(*_day(as_of))
    if environment is None:
        statement = _audience(file, None).sql(dialect.value, moment)
    else:
        with _opened(file, environment) as (found, place):
            found.check(place)
            if place.dialect not in ("duckdb", dialect.value):
                raise ValueError(
                    f"the warehouse of {environment} speaks {place.dialect}: ask for --dialect {place.dialect}"
                )
            statement = found.sql(dialect.value, moment, place)
    out.print(f"{statement};", markup=False, highlight=False)


@audience.command()
def preview(
    file: FileArgument, environment: EnvironmentOption, as_of: AsOfOption = None, as_json: JsonOption = False
) -> None:
    """Count who is in an audience, name some of them, and tell who enters and leaves. Writes nothing."""
    with open_environment(environment) as hub, hub.elsewhere() as there:
        found = _audience(file, hub.environment)
        shown = found.preview(hub.warehouse, *_day(as_of), there)
    run = shown.run
    counts = {"members": run.members, "entering": run.entered, "leaving": run.left}
    if as_json:
        against = run.compared_with and run.compared_with.isoformat()
        moment = run.moment.isoformat().replace("+00:00", "Z")
        print_json({**counts, "as_of": moment, "compared_with": against, "sample": list(shown.sample)})
        return
    print_counts(f"{found.definition.name}, as of {run.moment:%Y-%m-%d %H:%M} UTC", counts)
    out.print(f"Compared with the result of {run.compared_with}." if run.compared_with else "There is no result yet.")
    for identity in shown.sample:
        out.print(f"  {plain(identity)}", highlight=False)
    if run.members > len(shown.sample):
        out.print(f"  and {run.members - len(shown.sample):,} more")


@audience.command()
def check(
    files: Annotated[list[str], typer.Argument(help="JSON or YAML files with audience definitions.")],
    environment: SomeEnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look whether definitions can be read and, in an environment, whether all that they name is there."""
    found = [(file, *_look_at(file, environment)) for file in files]
    if as_json:
        print_json([{"file": file, "name": name, "problems": _plain(problems)} for file, name, problems in found])
    else:
        for file, name, problems in found:
            if not problems:
                out.print(f"[green]ok[/]     {plain(file)}: {plain(name or '')}")
            for problem in problems:
                err.print(f"[red]failed[/] {plain(str(problem))}", highlight=False)
    if any(problems for _, _, problems in found):
        raise typer.Exit(USAGE)


def _plain(problems: Sequence[Problem]) -> list[dict[str, str | int | None]]:
    return [{"line": each.line, "field": each.field, "message": each.message} for each in problems]


def _look_at(file: str, environment: str | None) -> tuple[str | None, tuple[Problem, ...]]:
    from heap_integration.environment import EnvironmentProblems

    try:
        if environment is None:
            return _audience(file, None).definition.name, ()
        with _opened(file, environment) as (found, place):
            found.check(place)
            return found.definition.name, ()
    except EnvironmentProblems as mistakes:
        return None, mistakes.problems


def _audience(file: str, environment: Environment | None) -> Audience:
    """Return a definition, under the name of the segment that it is the source of, if it is one's."""
    from heap_integration.segments.audiences.audience import Audience
    from heap_integration.segments.audiences.settings import AudienceSettings
    from heap_integration.settings import slug

    path = existing(file)
    if environment is None:
        return Audience.load(path, slug(path.stem), AudienceSettings())
    own = [each for each in environment.segments if each.kind == "audience" and _is_file(str(each.source), path)]
    name = own[0].slug if own else slug(path.stem)
    return Audience.load(path, name, environment.audiences, environment.segments)


def _is_file(one: str, other: Path) -> bool:
    return Path(one).resolve() == other.resolve()


@contextmanager
def _opened(file: str, environment: str) -> Iterator[tuple[Audience, Place]]:
    """Yield a definition, and the environment's warehouse to look at."""
    from heap_integration.segments.audiences.places import OwnPlace, elsewhere

    with open_environment(environment) as hub, hub.elsewhere() as there:
        found = _audience(file, hub.environment)
        if there is not None:
            with elsewhere(there, hub.warehouse) as place:
                yield found, place
            return
        with hub.warehouse.read(ample=True) as con:
            yield found, OwnPlace(con)


def _day(given: str | None) -> tuple[date, datetime]:
    """Return the day that is asked for, and now."""
    now = datetime.now(UTC)
    if given is None:
        return now.date(), now
    try:
        return date.fromisoformat(given), now
    except ValueError:
        raise ValueError(f"--as-of is {given!r}: wanted is a day such as 2026-01-02") from None
