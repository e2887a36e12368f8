"""A receiver in a process of its own: ``program.py FOLDER PORT`` prints its URL once it listens."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

from heap_integration.landing import LandingWriter
from heap_integration.receiver import create_app, serve
from heap_integration.store import Store
from heap_integration_tests.receiver.signing import SEGMENT_SECRET, USERFLOW_SECRET


def main(folder: Path, port: int) -> None:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.DEBUG)
    app = create_app(
        store=Store(f"sqlite:///{folder}/hub.db"),
        landing=LandingWriter(folder / "landing"),
        userflow_secret=USERFLOW_SECRET,
        segment_sync_secret=SEGMENT_SECRET,
    )
    serve(app, "127.0.0.1", port, ready=partial(print, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
