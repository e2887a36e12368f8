"""Commands that load Heap Connect's dumps, and tell what stands of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from heap_integration.cli.terminal import (
    FAILURE,
    JsonOption,
    app,
    end,
    err,
    open_environment,
    out,
    plain,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from heap_integration.heap_connect.reports import DumpReport

EnvironmentArgument = Annotated[str, typer.Argument(help="The name of a folder under environments/.")]


@app.command("import-dumps")
def import_dumps(environment: EnvironmentArgument, as_json: JsonOption = False) -> None:
    """Load the dumps of Heap Connect that are complete and not loaded yet, in their order; each is all there or not."""
    from heap_integration.heap_connect.importer import DumpError

    reports, broken, nothing = [], "", "no dump is waiting"
    with open_environment(environment) as hub, hub.dump_importer() as importer, progress(as_json) as show:
        for dump in importer.waiting():
            read = 0

            def told(table: str, rows: int) -> None:
                nonlocal read
                read += rows
                show(f"dump {dump.dump_id}, {table}", read, None)  # noqa: B023 - it is called at once

            try:
                reports.append(importer.apply(dump, told))
            except DumpError as error:
                broken = str(error)
                break
            if not as_json:
                _print(reports[-1])
        if not reports and not broken and not importer.listed():
            nothing = importer.nothing_there
    if as_json:
        print_json({"dumps": [asdict(report) for report in reports], "stopped": broken or None})
    elif not reports and not broken:
        err.print(plain(nothing), highlight=False)
    if broken:
        end(FAILURE, f"{broken}. Nothing of this dump is loaded, and later ones wait for it.")


@app.command()
def dumps(environment: EnvironmentArgument, as_json: JsonOption = False) -> None:
    """Tell which dumps wait, and from which dump each of Heap's tables is."""
    with open_environment(environment) as hub, hub.dump_importer() as importer:
        waiting, tables = [dump.dump_id for dump in importer.waiting()], importer.tables()
        found, nothing = len(waiting) or len(importer.listed()), importer.nothing_there
    if as_json:
        print_json({"in_bucket": found > 0, "waiting": waiting, "tables": [asdict(table) for table in tables]})
        return
    if found:
        out.print(f"{len(waiting)} waiting{': ' + ', '.join(map(str, waiting)) if waiting else ''}")
    else:
        out.print(plain(nothing), highlight=False)
    shown = Table("table", "dump", "whole since dump", "rows", "loaded (UTC)")
    for table in sorted(tables, key=lambda table: table.name):
        since = "–" if table.replaced_by is None else str(table.replaced_by)
        moment = f"{table.loaded_at:%Y-%m-%d %H:%M:%S}"
        shown.add_row(plain(table.name), str(table.dump_id), since, f"{table.rows:,}", moment)
    if tables:
        out.print(shown)


def _print(report: DumpReport) -> None:
    title = f"dump {report.dump_id}: {report.bytes / 1e6:,.1f} MB in {report.seconds:.1f} s"
    table = Table(title=title, title_justify="left")
    for name in ("table", "how", "read", "inserted", "updated", "duplicates", "keyless", "removed", "rows"):
        table.add_column(name, justify="left" if name in ("table", "how") else "right")
    for each in report.tables:
        counts = (each.read, each.inserted, each.updated, each.duplicates, each.keyless, each.removed, each.rows)
        table.add_row(plain(each.name), each.how, *(f"{count:,}" for count in counts))
    out.print(table)
    for each in report.tables:
        for words, columns in (("new", each.gained), ("no longer sent", each.lost), ("of another type", each.retyped)):
            if columns:
                out.print(f"  {plain(each.name)}: {words}: {plain(', '.join(columns))}")
        if each.unread:
            out.print(
                f"  {plain(each.name)}: {each.unread:,} rows have a time that can't be read: {plain(each.example)}"
            )
    if report.ignored:
        out.print(f"  not loaded: {plain(', '.join(report.ignored))}")
