"""The profiles that are wanted at a destination: rows of a table as JSON under the destination's ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from heap_integration.segments.audiences.settings import UsersTable
from heap_integration.segments.columns import AttributeType, attribute_of, identity_of, is_placeholder, literal, pointer
from heap_integration.segments.identity import OPTED_OUT, Match, apart_from, count_opted_out, ids_of
from heap_integration.segments.wanted import Wanted
from heap_integration.sync_settings import MappingTable, MapUsersBy, ProfileField, ProfileSync
from heap_integration.warehouse.tables import Table, TableError, find_table

if TYPE_CHECKING:
    import duckdb

# What an operation works on, whatever the column is.
OPERANDS: Mapping[str, AttributeType] = {"add": "number", "append": "list"}

SEVERAL_ROWS = "the table has several rows of this identity"
SEVERAL_IDS = "the identity has several ids at the destination"
SHARED_ID = "several identities with properties have this id at the destination"

BASELINE = """
left join (select identity as id, properties from sync_baseline where sync = $wanted_sync) as hub_baseline
on hub_baseline.id = """


@dataclass(frozen=True)
class _Rows:
    """The rows of a table in SQL: where they are, whose they are, and what of them goes out."""

    relation: str
    identity: str
    properties: str
    remembers: bool

    def beside(self, identity: str) -> str:
        """Return the join that gives a row what was acknowledged of it, where that is asked for."""
        return BASELINE + identity if self.remembers else ""


def profile_wanted(
    con: duckdb.DuckDBPyConnection,
    settings: ProfileSync,
    users: UsersTable,
    sync: str,
    opted_out: Sequence[str] = (),
) -> Wanted:
    """Return the profiles of a table under the destination's ids; ``sync`` names the baseline.

    Users who opted out are left out, and who shares an id with one of them.

    A row that can't go out, because a value doesn't fit or nobody can tell whose it is, has the reason in place of its
    properties. Rows without an identity, with a placeholder for one, or without an id at the destination are left out.

    Raises:
        TableError: a table or a column isn't there, or a column can't be what its field says.
    """
    table = _without(find_table(con, settings.table), settings, opted_out)
    fields = fields_of(table, settings)
    remembers = any(field.operation in OPERANDS and field.when_null == "skip" for field in fields.values())
    rows = _Rows(table.relation, identity_of(table, settings.identity), _properties(table, fields), remembers)
    by = settings.map_users_by
    sql = _under_identity(rows) if by == "identity" else _under_ids(rows, _ids(con, settings, by, users, opted_out))
    return Wanted(sql, ({"wanted_sync": sync} if remembers else {}) | _parameters(settings, opted_out))


def profile_match(
    con: duckdb.DuckDBPyConnection, settings: ProfileSync, users: UsersTable, opted_out: Sequence[str] = ()
) -> Match:
    """Count the identities of a table by what becomes of them, users who opted out apart.

    Ambiguous are those with several rows or several ids, and those that share an id with others.

    Raises:
        TableError: see ``profile_wanted``.
    """
    whole = find_table(con, settings.table)
    table = _without(whole, settings, opted_out)
    people = _people(table.relation, identity_of(table, settings.identity))
    nobody = is_placeholder("people.identity")
    by = settings.map_users_by
    if by == "identity":
        source = f"select identity, 1 as ids, copies > 1 as troubled from ({people}) as people"
    else:
        source = f"""
{_targets(people, _ids(con, settings, by, users, opted_out))}
select people.identity, count(targets.target) as ids, bool_or(targets.trouble is not null) as troubled
from people left join found using (identity) left join targets on targets.target = found.target
group by all
"""
    row = con.execute(
        f"""
        select count(*),
               count(*) filter (ids > 0 and not troubled and not ({nobody})),
               count(*) filter (ids = 0 and not ({nobody})),
               count(*) filter (troubled and not ({nobody}))
        from ({source}) as people
        """,
        _parameters(settings, opted_out),
    ).fetchone()
    everybody, with_id, unmapped, ambiguous = (int(value) for value in row or (0,) * 4)
    placeholders = everybody - with_id - unmapped - ambiguous
    everyone = Wanted(f"select identity from ({_people(whole.relation, identity_of(whole, settings.identity))})")
    left_out = count_opted_out(con, everyone, opted_out) if settings.of == "users" else 0
    return Match(everybody, with_id, with_id, unmapped, ambiguous, placeholders, opted_out=left_out)


def _without(table: Table, settings: ProfileSync, opted_out: Sequence[str]) -> Table:
    if not _parameters(settings, opted_out):
        return table
    identity = identity_of(table, settings.identity)
    # What has no identity stays, to be counted as such.
    rows = f"select * from {table.relation} as hub_row where {identity} is null or {identity} not in ({OPTED_OUT})"
    return replace(table, relation=f"({rows})")


def _parameters(settings: ProfileSync, opted_out: Sequence[str]) -> dict[str, Any]:
    return {"opted_out": list(opted_out)} if opted_out and settings.of == "users" else {}


def fields_of(table: Table, settings: ProfileSync) -> dict[str, ProfileField]:
    """Return the fields by their columns, in the order of the attributes' names.

    Without any, every column but the identity goes out under its own name.

    Raises:
        TableError: a column isn't there, or two go under one name.
    """
    identity = table.column(settings.identity)
    given = {table.column(column): field for column, field in settings.fields.items()}
    fields = given or {column: ProfileField(to=column) for column in table.columns if column != identity}
    names = [field.to for field in fields.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"table {table.name}: several columns go out as {', '.join(twice)}")
    return dict(sorted(fields.items(), key=lambda item: item[1].to))


def _ids(
    con: duckdb.DuckDBPyConnection,
    settings: ProfileSync,
    by: MapUsersBy,
    users: UsersTable,
    opted_out: Sequence[str],
) -> str:
    if settings.of == "accounts" and not isinstance(by, MappingTable):
        raise TableError("accounts have no e-mail address and no user property: map them by identity or by a table")
    return apart_from(ids_of(con, by, users), opted_out if settings.of == "users" else ())


def _properties(table: Table, fields: Mapping[str, ProfileField]) -> str:
    members, troubles, unfit = [], [], []
    for column, field in fields.items():
        operand = OPERANDS.get(field.operation)
        if operand and field.type not in (None, operand):
            raise TableError(f"{field.to}: {field.operation} needs a {operand}, and its type is {field.type}")
        value = attribute_of(table, column, operand or field.type, as_set=field.operation == "append")
        key = literal(orjson.dumps(field.to).decode() + ":")
        members.append(f"{key} || {_or_null(value.json, field)}")
        if value.unfit:
            unfit.append(f"({value.unfit})")
            troubles.append(f"case when {value.unfit} then {literal(value.words)} end")
    profile = f"'{{' || concat_ws(',', {', '.join(members)}) || '}}'" if members else "'{}'"
    if not unfit:
        return profile
    reason = f"to_json(concat_ws('; ', {', '.join(troubles)}))::varchar"
    return f"case when {' or '.join(unfit)} then {reason} else {profile} end"


def _or_null(json: str, field: ProfileField) -> str:
    """Return what stands for a null: nothing, a null, or what was acknowledged, which an operation goes on from."""
    if field.when_null != "skip":
        return f"coalesce({json}, 'null')"
    if field.operation not in OPERANDS:
        return json
    return f"coalesce({json}, nullif(json_extract(hub_baseline.properties, {pointer(field.to)})::varchar, 'null'))"


def _people(relation: str, identity: str) -> str:
    return (
        f"select {identity} as identity, count(*) as copies from {relation} as hub_row"
        f" where {identity} is not null group by all"
    )


def _under_identity(rows: _Rows) -> str:
    # Who has several rows is looked for by the narrow column alone, and is nearly nobody.
    return f"""
with again as (
    select identity from ({_people(rows.relation, rows.identity)})
    where copies > 1 and not ({is_placeholder("identity")})
)
select {rows.identity} as identity, {rows.properties} as properties
from {rows.relation} as hub_row {rows.beside(rows.identity)}
where {rows.identity} is not null and not ({is_placeholder(rows.identity)})
  and {rows.identity} not in (select identity from again)
union all
select identity, {_marker(literal(SEVERAL_ROWS))} from again
"""


def _under_ids(rows: _Rows, ids: str) -> str:
    return f"""
{_targets(_people(rows.relation, rows.identity), ids)}
select targets.target as identity, {rows.properties} as properties
from {rows.relation} as hub_row join targets on targets.identity = {rows.identity} {rows.beside("targets.target")}
where targets.trouble is null
union all
select target, {_marker("trouble")} from targets where trouble is not null
"""


def _targets(people: str, ids: str) -> str:
    """Return who has which id at the destination, and why some of them can't be told apart."""
    return f"""
with people as ({people}),
found as ({ids}),
known as (select identity, count(*) as ids from found group by identity),
targets as (
    select found.target, min(people.identity) as identity,
           case when max(copies) > 1 then {literal(SEVERAL_ROWS)}
                when max(ids) > 1 then {literal(SEVERAL_IDS)}
                when count(*) > 1 then {literal(SHARED_ID)} end as trouble
    from people join known using (identity) join found using (identity)
    where not ({is_placeholder("people.identity")})
    group by found.target
)
"""


def _marker(reason: str) -> str:
    return f"to_json({reason})::varchar"
