"""bqemulator as a program that needs no internet: usage python bigquery_server.py <folder> <port> <gRPC port>."""

from __future__ import annotations

import os
import sys
from pathlib import Path

folder, port, grpc = sys.argv[1:]
# DuckDB keeps its extensions in the home folder
os.environ["HOME"] = folder

import duckdb  # noqa: E402
import duckdb_extension_spatial  # noqa: E402
from bqemulator.cli import main  # noqa: E402

[spatial] = Path(duckdb_extension_spatial.__file__).parent.rglob("spatial.duckdb_extension")
duckdb.connect().execute(f"install '{spatial}'")
sys.argv = ["bqemulator", "start", "--rest-port", port, "--grpc-port", grpc, "--log-level", "warning"]
main()
