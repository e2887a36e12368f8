"""Commands that serve until they are interrupted, and the demo."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from heap_integration.cli.terminal import (
    FAILURE,
    USAGE,
    EnvironmentOption,
    MappingOption,
    app,
    end,
    environment_of,
    err,
    open_environment,
    out,
)
from heap_integration.environment import find_root, read_variables


class LogForm(StrEnum):
    """How a log is written: lines for people, or JSON for machines."""

    TEXT = "text"
    JSON = "json"


@app.command()
def receive(
    environment: EnvironmentOption,
    port: Annotated[int, typer.Option(help="0 takes any free one.", min=0, max=65535)] = 8480,
    host: Annotated[
        str, typer.Option(help="Where to listen; put TLS in front of anything but this machine.")
    ] = "127.0.0.1",
    log: Annotated[LogForm, typer.Option(help="How the log is written.")] = LogForm.TEXT,
) -> None:
    """Take webhooks and Segment-style calls until interrupted."""
    from heap_integration.connecting import connected_id_token
    from heap_integration.hub import receiver_settings
    from heap_integration.receiver import create_app, serve
    from heap_integration.receiver.log import configure
    from heap_integration.receiver.server import ServerFailed
    from heap_integration.switches import switch

    settings = environment_of(environment)
    variables = read_variables(settings, os.environ)
    configure(json=log is LogForm.JSON)
    with open_environment(environment) as hub:
        receiver = create_app(
            settings=receiver_settings(settings, variables),
            store=hub.store,
            landing=hub.landing(),
            switch=switch(settings),
            connected=lambda: connected_id_token(hub.store),
        )
        try:
            serve(receiver, host, port, lambda url: err.print(f"{environment}: receiving on {url}"))
        except ServerFailed as failed:
            end(FAILURE, str(failed))


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8470,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    state: Annotated[Path, typer.Option(help="The SQLite file that holds what arrived.")] = Path(
        "data/sandbox-state.db"
    ),
) -> None:
    """Serve stand-ins for Heap and Userflow until interrupted."""
    from heap_integration.sandbox.app import serve

    state.parent.mkdir(parents=True, exist_ok=True)
    err.print(f"sandbox: console on http://{host}:{port}/")
    serve(host, port, state)


@app.command()
def docs(port: Annotated[int, typer.Option(min=1, max=65535)] = 8490) -> None:
    """Serve the documentation on this machine until interrupted."""
    from heap_integration.docs_site import serve

    serve(find_root(), port)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Run the main job without the UI and end.")] = False,
    days: Annotated[str, typer.Option(help="How many of the last days to send, or all.")] = "14",
    data: Annotated[Path | None, typer.Option(help="Your own events instead of the demo's.", exists=True)] = None,
    mapping: MappingOption = None,
    ends: Annotated[str, typer.Option(help="When the demo's own events end: today, a date, or as-recorded.")] = "today",
    receiver_port: Annotated[int, typer.Option(help="Where the receiver listens.", min=1, max=65535)] = 8480,
) -> None:
    """Run both flows on real input against the sandbox, with the Dagster UI."""
    from heap_integration.demo import Demo, DemoFailed

    if days != "all" and not (days.isdigit() and int(days) > 0):
        end(USAGE, f"--days is {days!r}: allowed are a number of days and all")
    try:
        number = None if days == "all" else int(days)
        Demo(find_root(), days=number, ends=ends, data=data, mapping=mapping, receiver_port=receiver_port, out=out).run(
            once=once
        )
    except DemoFailed as failed:
        end(FAILURE, str(failed))
