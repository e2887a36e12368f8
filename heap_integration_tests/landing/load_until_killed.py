"""A loader in a process of its own: ``load_until_killed.py WAREHOUSE HOME``, a folder or the URL of a store."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from heap_integration.events.loading import load_landed
from heap_integration.landing import Arrivals, FolderArrivals, StoreArrivals
from heap_integration.store import Store
from heap_integration.warehouse import Warehouse


def arrivals_in(home: str) -> Arrivals:
    """Return what arrives in a folder, or in the store with this URL."""
    return StoreArrivals(Store(home)) if "://" in home else FolderArrivals(Path(home))


def main(warehouse: str, home: str) -> None:
    """Load what arrives."""
    arrivals = arrivals_in(home)
    while True:
        if arrivals.has_waiting():
            load_landed(Warehouse(f"duckdb:///{warehouse}"), arrivals)
        time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
