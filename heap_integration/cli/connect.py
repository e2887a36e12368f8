"""Commands that open and close ways to others: to the Heap customer, to a webhook that wanted no more."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from heap_integration.cli.terminal import FAILURE, EnvironmentOption, app, end, err, open_environment, out, plain
from heap_integration.environment import read_variables

EnvironmentArgument = Annotated[
    str, typer.Argument(help="The name of a folder under environments/.", show_default=False)
]


@app.command()
def connect(
    environment: EnvironmentArgument,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address, to open it in a browser of this machine.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds until it is given up.", min=1)] = 300,
) -> None:
    """Connect an environment to Heap's Segment Sync: somebody allows it in the browser, the token is kept encrypted."""
    import webbrowser

    from heap_integration.connecting import ConnectFailed
    from heap_integration.connecting import connect as connect_to_heap

    def open_browser(address: str) -> None:
        # For whoever copies it: neither broken nor decorated.
        err.print("Open this address where you are logged in to Heap:")
        err.print(address, markup=False, highlight=False)
        if not no_browser:
            webbrowser.open(address)

    with open_environment(environment) as hub, err.status("waiting for Heap"):
        variables = read_variables(hub.environment, os.environ)
        try:
            connection = connect_to_heap(hub.environment, hub.store, variables, open_browser=open_browser, wait=wait)
        except ConnectFailed as failed:
            end(FAILURE, f"{environment} is not connected: {failed}")
    by, at = connection.authorized_by or "somebody", connection.authorized_at or "a time that Heap doesn't say"
    out.print(
        f"[green]connected[/] {environment} to Heap environment {connection.env_id}, "
        f"allowed by {plain(by)} at {plain(at)}",
        highlight=False,
    )


@app.command()
def disconnect(environment: EnvironmentArgument) -> None:
    """Forget the connection to Heap's Segment Sync."""
    from heap_integration.connecting import disconnect as forget

    with open_environment(environment) as hub:
        was = forget(hub.store)
    if was:
        out.print(f"disconnected {environment}: take the integration out in Heap too, else it goes on sending")
    else:
        out.print(f"{environment} was not connected")


@app.command("enable-webhook")
def enable_webhook(
    name: Annotated[str, typer.Argument(help="The webhook's name in environment.yaml.", show_default=False)],
    environment: EnvironmentOption,
) -> None:
    """Let a webhook that answered 410 (gone) be called again."""
    from heap_integration.destinations.webhook import enable_again

    with open_environment(environment) as hub:
        known = [webhook.name for webhook in hub.environment.destinations.webhooks]
        if name not in known:
            raise ValueError(f"{environment} has no webhook {name!r}; there are: {', '.join(known) or 'none'}")
        was = enable_again(hub.store, name)
    out.print(f"{name} {'is called again from the next sync on' if was else 'was not disabled'}")
