"""A receiver in a process of its own: ``program.py FOLDER PORT [STORE]`` prints its URL once it listens.

With the URL of a store lines land there, without one in files.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

from heap_integration.landing import LandingWriter, StoreLanding
from heap_integration.receiver import create_app, serve
from heap_integration.store import Store
from heap_integration_tests.receiver.serving import EVERYTHING


def main(folder: Path, port: int, shared: str | None) -> None:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.DEBUG)
    store = Store(shared or f"sqlite:///{folder}/hub.db")
    landing = StoreLanding(store) if shared else LandingWriter(folder / "landing")
    app = create_app(settings=EVERYTHING, store=store, landing=landing)
    serve(app, "127.0.0.1", port, ready=partial(print, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
