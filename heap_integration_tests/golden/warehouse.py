"""A small shop in DuckDB, in which the models of any warehouse can be run."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter

import duckdb
from sqlglot import exp, parse_one

from heap_integration.warehouse.ddl import TABLE_NAMES, TABLES
from heap_integration_tests.golden.compiling import HEAP_TABLES

MODELS, HEAP, HUB = "shop_models", "shop_heap_connect", "shop_hub"
USERS, VISITS = 120, 900
KINDS = {
    "event_id": "{n} * 1000 + {table}",
    "user_id": "1 + {n} * 7919 % {users}",
    "session_id": "{n}",
    "from_user_id": "{n} * 10",
    "to_user_id": "{n}",
    "time": "timestamp '2026-01-01 00:03:00' + interval (({n} * 48611 + {table} * 97) % 2671200) second",
    "joindate": "timestamp '2025-12-20 10:00:00' + interval ({n} * 6) hour",
    "last_modified": "timestamp '2026-01-20 10:00:00' + interval ({n}) minute",
    "_hub_dump": "{n} % 3",
    "identity": "'user' || {n} || '@example.com'",
    "email": "'user' || {n} || '@example.com'",
    "plan": "case {n} % 4 when 0 then 'pro' when 1 then 'free' when 2 then 'it''s \"big\"' end",
    "account_id": "'account ' || {n} % 9",
    "platform": "case {n} % 3 when 0 then 'web' when 1 then 'iOS' else 'Android' end",
    "landing_page": "'https://shop.example/start'",
    "landing_page_query": "case when {n} % 5 = 0 then '?gclid=g' || {n} || '&utm_source=google' end",
    "query": "case when {n} % 7 = 0 then '?a=1&gclid=x' || {n} end",
    "utm_source": "case {n} % 5 when 0 then 'google' when 1 then 'mail' end",
    "utm_medium": "case {n} % 5 when 0 then 'cpc' when 1 then 'email' end",
    "referrer": "case {n} % 4 when 0 then 'https://search.example/?q=shop' end",
}
ALIKE = {exp.DType.BIT: exp.DType.BOOLEAN, exp.DType.FLOAT: exp.DType.DOUBLE}
SIZES = {"users": USERS, "user_migrations": 5, "first_purchase": VISITS // 4, "email_verified": VISITS // 2}


def shop() -> duckdb.DuckDBPyConnection:
    """Return a database with Heap's tables and the hub's, and an empty schema for models."""
    con = duckdb.connect()
    con.execute(f"attach ':memory:' as heap; use heap; set TimeZone = 'UTC'; create schema {HUB}; create schema {HEAP}")
    # BigQuery leaves out what is null; what is compared below does so anyway
    con.execute("create macro json_strip_nulls(given) as given::json")
    for number, (name, columns) in enumerate(HEAP_TABLES.items()):
        listed = ", ".join(
            KINDS.get(column, f"'{column} ' || {{n}} % 6").format(n="n", users=USERS, table=number) + f' as "{column}"'
            for column in columns
        )
        own = ", n as user_id" if name == "users" else ""
        rows = f"select {listed.replace(KINDS['user_id'].format(n='n', users=USERS), 'n') if own else listed}"
        con.execute(f"create table {HEAP}.{name} as {rows} from range(1, {SIZES.get(name, VISITS)} + 1) as numbers(n)")
        # Heap repeats rows
        con.execute(f"insert into {HEAP}.{name} select * from {HEAP}.{name} limit 20")
    con.execute(f"{TABLES}; create schema {MODELS}")
    for name in (*sorted(TABLE_NAMES), "hub_traits", "hub_users"):
        con.execute(f"create view {HUB}.{name} as from main.{name}")
    con.execute(
        "insert into product_events select n, md5('key' || n)::uuid, 'm' || n, 'track', 'Order Placed', 'u' || n % 9,"
        " null,"
        " timestamp '2026-01-05' + interval (n) hour, date '2026-01-05' + (n // 24)::int,"
        " timestamp '2026-01-05' + interval (n) hour, 'shop', '{\"amount\": 3}', '{}', '{}', 'file', n, null"
        " from range(200) as numbers(n)"
    )
    con.execute(
        "insert into event_outcomes select seq, event_key, event_day, type, origin, 1 + seq % 3, 'because',"
        " received_at + interval (seq % 50) second from product_events where seq % 10 <> 0"
    )
    return con


def run(con: duckdb.DuckDBPyConnection, models: Mapping[str, str], dialect: str) -> None:
    """Run models in the order in which they need each other, each as the table of its name."""
    trees = {name: parse_one(sql, dialect=dialect) for name, sql in models.items() if "." not in name}
    needed = {
        name: ({table.name.lower() for table in tree.find_all(exp.Table)} & trees.keys()) - {name}
        for name, tree in trees.items()
    }
    for name in TopologicalSorter(needed).static_order():
        sql = models[name] if dialect == "duckdb" else trees[name].transform(_as_meant).sql("duckdb")
        try:
            con.execute(f"create table {MODELS}.{name} as {sql}")
        except duckdb.Error as error:
            raise AssertionError(f"{name}: {error}\n{sql}") from error


def _as_meant(node: exp.Expr) -> exp.Expr:
    """Return what sqlglot doesn't carry over to DuckDB.

    Hashes are hexadecimal, a JSON text cast to text is the text, T-SQL's BIT is a boolean, and FLOAT is a double.
    """
    if isinstance(node, exp.Convert) and isinstance(node.expression, exp.MD5):
        return node.expression
    if isinstance(node, exp.Cast) and isinstance(node.this, exp.JSONExtract) and node.is_type("varchar"):
        return exp.JSONExtractScalar(this=node.this.this, expression=node.this.expression)
    if isinstance(node, exp.DataType) and node.this in ALIKE:
        return exp.DataType(this=ALIKE[node.this])
    return node


def contents(con: duckdb.DuckDBPyConnection, model: str) -> list[tuple[str, ...]]:
    """Return a model's rows as text, in one order for all warehouses."""
    described = con.execute(f"describe {MODELS}.{model}").fetchall()
    shown = ", ".join(_as_text(name, kind) for name, kind, *_ in described)
    return sorted(con.execute(f"select {shown} from {MODELS}.{model}").fetchall(), key=str)


def _as_text(name: str, kind: str) -> str:
    column = f'"{name}"'
    if "TIME ZONE" in kind:
        column = f"{column}::timestamp"
    if kind.startswith(("DECIMAL", "DOUBLE", "FLOAT")):
        column = f"round({column}::double, 6)"
    if kind in ("BIGINT", "INTEGER", "HUGEINT"):
        column = f"{column}::double"
    if name.endswith("properties"):
        # two objects are the same in whatever order they are written, and a property of nothing is none
        entries = f"map_entries(cast(json({column}) as map(varchar, varchar)))"
        column = f"list_sort(list_filter({entries}, lambda entry: entry.value is not null))"
    return f"cast({column} as varchar)"
