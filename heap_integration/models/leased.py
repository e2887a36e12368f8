"""Runs dbt in a process that keeps all others out of the warehouse's file for as long as it runs.

The lock is the process's own that works on the file: it outlives whoever started it, and dies with the work.
"""

from __future__ import annotations

import sys


def main(url: str, arguments: list[str]) -> None:
    """Call dbt with ``arguments`` once nobody else has the DuckDB file at ``url`` open."""
    from dbt.cli.main import cli

    from heap_integration.warehouse import Warehouse

    with Warehouse(url).lease():
        cli(arguments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
