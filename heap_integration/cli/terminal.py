"""What all commands share: options, what they print and how they end."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from heap_integration.environment import FILE_NAME, Environment, find_root, load_environment, read_variables

if TYPE_CHECKING:
    from heap_integration.events.mapping import Mapping
    from heap_integration.hub import Hub

USAGE, FAILURE = 2, 1

app = typer.Typer(
    name="heap-integration",
    help="The hub between Heap and everything a company connects to it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

EnvironmentOption = Annotated[
    str, typer.Option("--environment", "-e", help="The name of a folder under environments/.", show_default=False)
]
MappingOption = Annotated[
    Path | None,
    typer.Option(help="YAML that says which column is what; without it lines are Segment-style JSON.", exists=True),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]


def environment_of(name: str) -> Environment:
    root = find_root()
    folder = root / "environments" / name
    if not (folder / FILE_NAME).is_file():
        known = ", ".join(sorted(path.parent.name for path in root.glob(f"environments/*/{FILE_NAME}"))) or "none"
        raise ValueError(f"there is no environment {name!r} ({folder / FILE_NAME}); there are: {known}")
    return load_environment(folder)


def spare_the_collector() -> None:
    """Tell the garbage collector that what is there stays: to look through it again and again costs a tenth."""
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)


@contextmanager
def open_environment(name: str) -> Iterator[Hub]:
    from heap_integration.hub import open_hub

    environment = environment_of(name)
    spare_the_collector()
    with open_hub(environment, read_variables(environment, os.environ)) as hub:
        yield hub


def existing(file: str) -> Path:
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no file {file}")
    return path


def mapping_of(path: Path | None) -> Mapping | None:
    from heap_integration.events.mapping import load_mapping

    return load_mapping(path) if path else None


def preset_of(name: str | None) -> Any:
    presets = ("hub", "segment", "rudder", "airbyte")
    if name is not None and name not in presets:
        raise ValueError(f"--preset is {name!r}: allowed are {', '.join(presets)}")
    return name


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield what shows how far a long piece of work is: its name, how many are done, of how many if that is known."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda words, done, total: progress.update(task, description=words, completed=done, total=total)


def print_counts(title: str, counts: dict[str, int]) -> None:
    table = Table(title=title, title_justify="left")
    for name in counts:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:,}" for value in counts.values()))
    out.print(table)


def print_reasons(rows: list[tuple[str, str, int]]) -> None:
    for outcome, reason, count in rows:
        out.print(f"  {count:>9,}  {outcome}: {plain(reason)}")


def print_json(document: Any) -> None:
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")


def plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def end(code: int, *messages: str) -> NoReturn:
    for message in messages:
        err.print(f"[red]error:[/] {plain(message)}", highlight=False)
    raise SystemExit(code)
