"""The console page: what arrived, as the vendors' own pages would show it."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


def console_route() -> Route:
    """Return the route of the page; it asks /_state for everything it shows."""
    page = files(__package__).joinpath("console.html").read_text(encoding="utf-8")

    async def console(_request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    return Route("/", console)
