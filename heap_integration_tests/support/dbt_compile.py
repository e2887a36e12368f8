"""Compiles the dbt project for a warehouse that isn't there: a program for an environment that has dbt's adapter.

Usage: python -P dbt_compile.py <adapter> <project> <folder with the profile> <variables as JSON>. In the folder it
leaves ``sql.json`` with the SQL of each model: as it is built the first time, under the name of the model, and as it
goes on, under ``<model>.incremental``. Without -P some modules beside this one would be taken for others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from dbt.adapters.base.impl import BaseAdapter
from dbt.adapters.contracts.connection import AdapterResponse
from dbt.adapters.factory import FACTORY
from dbt.cli.main import dbtRunner
from dbt_common.clients.agate_helper import table_from_rows

system, project, folder, variables = sys.argv[1:]
import_module(f"dbt.adapters.{system}")
ARGUMENTS = [
    "--quiet", "compile", "--no-introspect", "--no-populate-cache", "--project-dir", project, "--profiles-dir", folder,
    "--target-path", f"{folder}/target", "--log-path", folder, "--vars", variables,
]  # fmt: skip


def adapters(kind: type[BaseAdapter] = BaseAdapter) -> Iterator[type[BaseAdapter]]:
    """Yield every kind of adapter."""
    yield kind
    for below in kind.__subclasses__():
        yield from adapters(below)


def there(adapter: Any, database: str, schema: str, identifier: str, **_: object) -> Any:
    """Say that a table exists, whichever is asked for."""
    return adapter.Relation.create(database, schema, identifier, type="table")


def found(adapter: Any, sql: str, *_: object, **__: object) -> tuple[AdapterResponse, Any]:
    """Answer a query, of which models have but one: the days that they have to compute anew."""
    return AdapterResponse("OK"), table_from_rows([("2026-01-30",), ("2026-01-31",)], ["day"])


def compiled(*arguments: str) -> dict[str, str]:
    """Return the SQL of each model that is selected."""
    for adapter in adapters():
        adapter.get_relation = there
        adapter.execute = found
    FACTORY.reset_adapters()
    done = dbtRunner().invoke([*ARGUMENTS, "--indirect-selection", "empty", *arguments])
    if not done.success:
        raise SystemExit(str(done.exception or [result.message for result in done.result or [] if result.message]))
    return {result.node.name: result.node.compiled_code.strip() for result in done.result}


sql = compiled("--full-refresh", "--select", "resource_type:model")
going_on = compiled("--select", "resource_type:model,config.materialized:incremental")
sql |= {f"{name}.incremental": statement for name, statement in going_on.items()}
(Path(folder) / "sql.json").write_text(json.dumps(sql))
