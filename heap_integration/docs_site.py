"""Serves the documentation of a clone as web pages."""

from __future__ import annotations

from html import escape
from pathlib import Path

import uvicorn
from markdown_it import MarkdownIt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 52rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; }}
pre, code {{ background: color-mix(in srgb, currentColor 8%, transparent); border-radius: 4px; padding: .1em .3em; }}
pre {{ padding: .8em 1em; overflow-x: auto; }} pre code {{ background: none; padding: 0; }}
img {{ max-width: 100%; }} table {{ border-collapse: collapse; }}
td, th {{ border: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding: .3em .6em; text-align: left; }}
</style><body>{body}</body></html>"""


def create_app(root: Path) -> Starlette:
    """Build the application: the README, and everything under ``docs``, nothing else."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    home = root.resolve()

    def page(request: Request) -> Response:
        path = (home / request.path_params["path"]).resolve()
        if path != home / "README.md" and home / "docs" not in path.parents:
            return PlainTextResponse("no such page", 404)
        if not path.is_file():
            return PlainTextResponse("no such page", 404)
        if path.suffix != ".md":
            return FileResponse(path, media_type="text/plain" if path.suffix == ".yaml" else None)
        body = markdown.render(path.read_text("utf-8"))
        return HTMLResponse(PAGE.format(title=escape(path.stem), body=body))

    return Starlette(routes=[Route("/", lambda _request: RedirectResponse("/README.md")), Route("/{path:path}", page)])


def serve(root: Path, port: int) -> None:
    """Serve on this machine until interrupted."""
    uvicorn.run(create_app(root), host="127.0.0.1", port=port, log_level="warning", access_log=False)
