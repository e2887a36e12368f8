"""Which files were seen, in which version, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

Found = Literal["new", "grown", "changed", "known"]

_DONE = """
select distinct name, stamp from input_files
where source = $source and rules = $rules and fingerprint in (select fingerprint from loaded_inputs where complete)
"""

_WAITING = f"""
with done as ({_DONE}),
waiting as (select * from listed anti join done using (name, stamp)),
seen as (
    select name, stamp, any_value(content) as content, max(after_line) filter (rules = $rules) as after_line,
           any_value(found) filter (rules = $rules) as found
    from input_files where source = $source group by name, stamp
),
loaded as (
    select name, size, content, last_line, seen_at
    from input_files join (
        select fingerprint, max(last_line) as last_line from loaded_inputs group by fingerprint having bool_or(complete)
    ) using (fingerprint)
    where source = $source and rules = $rules
),
latest as (
    select name, arg_max(size, seen_at) as size, arg_max(content, seen_at) as content,
           arg_max(last_line, seen_at) as last_line
    from loaded group by name
),
versions as (select distinct name from input_files where source = $source)
select waiting.place, seen.content, coalesce(seen.after_line, 0), coalesce(seen.found, 'new'),
       versions.name is not null, latest.size, latest.content, latest.last_line
from waiting left join seen using (name, stamp) left join latest using (name) left join versions using (name)
order by waiting.place
"""


@dataclass(frozen=True)
class Version:
    """A loaded version of a file: its size in bytes, what is in it, its last line."""

    size: int
    content: str
    last_line: int


@dataclass(frozen=True)
class WaitingFile:
    """A listed file that isn't wholly loaded, or may have changed since.

    ``place`` is that in the list. ``content`` is known where this very version was seen before, and so are
    ``after_line``, the line after which it is new, and what it was ``found`` to be. ``known_name`` says
    whether any version was seen; ``latest`` is the last one that was loaded.
    """

    place: int
    content: str | None
    after_line: int
    found: Found
    known_name: bool
    latest: Version | None


@dataclass(frozen=True)
class FileNote:
    """A version of a file: its size in bytes, what is in it, what it is called together with the rules.

    ``after_line`` is the line after which it is new, ``found`` how it compares with earlier versions.
    """

    name: str
    stamp: str
    size: int
    content: str
    fingerprint: str
    after_line: int
    found: Found


_NOTES = pa.schema(
    [
        ("name", pa.string()),
        ("stamp", pa.string()),
        ("size", pa.int64()),
        ("content", pa.string()),
        ("fingerprint", pa.string()),
        ("after_line", pa.int64()),
        ("found", pa.string()),
    ]
)


@dataclass(frozen=True)
class ChangedFile:
    """A file whose content was another one than before, and how many events came with it that weren't known."""

    source: str
    name: str
    seen_at: datetime
    new_events: int


def waiting_files(
    con: duckdb.DuckDBPyConnection, source: str, rules: str, listed: Sequence[tuple[str, str]]
) -> list[WaitingFile]:
    """Return which of the files ``listed`` (name and stamp) have to be looked at.

    ``rules`` tell how they are read: by others they are read anew.
    """
    names, stamps = zip(*listed, strict=True) if listed else ((), ())
    con.register(
        "listed",
        pa.table(
            {
                "place": pa.array(range(len(listed)), pa.int64()),
                "name": pa.array(names, pa.string()),
                "stamp": pa.array(stamps, pa.string()),
            }
        ),
    )
    rows = con.execute(_WAITING, {"source": source, "rules": rules}).fetchall()
    con.unregister("listed")
    return [
        WaitingFile(
            place, seen, after_line, found, known_name, None if size is None else Version(size, content, last_line)
        )
        for place, seen, after_line, found, known_name, size, content, last_line in rows
    ]


def note_files(con: duckdb.DuckDBPyConnection, source: str, rules: str, notes: Sequence[FileNote]) -> None:
    """Keep that these versions of files are being loaded, or need not be.

    Of what a file was before, only its changes are kept.
    """
    con.register("noted", pa.Table.from_pylist([asdict(note) for note in notes], schema=_NOTES))
    con.execute(
        """
        delete from input_files using noted
        where source = $source and rules = $rules and input_files.name = noted.name
          and (input_files.stamp = noted.stamp or input_files.found in ('known', 'grown'))
        """,
        {"source": source, "rules": rules},
    )
    con.execute(
        """
        insert into input_files
        select $source, name, stamp, size, content, $rules, fingerprint, after_line, found, now()::timestamp from noted
        """,
        {"source": source, "rules": rules},
    )
    con.unregister("noted")


def reached_lines(con: duckdb.DuckDBPyConnection, fingerprints: Sequence[str]) -> dict[str, int | None]:
    """Return the last line of each input that is already loaded, ``None`` for those that wholly are.

    An input of which nothing is loaded is left out.
    """
    rows = con.execute(
        """
        select fingerprint, if(bool_or(complete), null, max(last_line)) from loaded_inputs
        where fingerprint in (select unnest($1)) group by fingerprint
        """,
        [list(fingerprints)],
    ).fetchall()
    return {str(mark): None if line is None else int(line) for mark, line in rows}


def origins_of(con: duckdb.DuckDBPyConnection, names: Mapping[str, str]) -> dict[str, str]:
    """Return what inputs are called in the warehouse, by their fingerprints; see ``origin_of``."""
    taken = con.execute(
        "select origin, min(fingerprint) from loaded_inputs where origin in (select unnest($1)) group by origin",
        [list(names.values())],
    ).fetchall()
    owners: dict[str, str] = dict(taken)
    return {
        mark: name if owners.setdefault(name, mark) == mark else f"{name}#{mark[:8]}" for mark, name in names.items()
    }


def finish_inputs(con: duckdb.DuckDBPyConnection, inputs: Sequence[tuple[str, str, int]]) -> None:
    """Keep that inputs are wholly loaded: each with its name, its fingerprint and its last line."""
    con.execute(
        """
        insert into loaded_inputs
        select origin, fingerprint, last_line, true, 0, 0, 0, 0, 0, now()::timestamp
        from (select unnest($1) as origin, unnest($2) as fingerprint, unnest($3) as last_line)
        """,
        [list(column) for column in zip(*inputs, strict=True)],
    )


def changed_files(
    con: duckdb.DuckDBPyConnection, source: str | None = None, since: datetime | None = None
) -> list[ChangedFile]:
    """Return the files that were found changed, newest first; ``since`` is in UTC without a zone."""
    rows = con.execute(
        """
        select input_files.source, name, seen_at, coalesce(sum(loaded), 0)
        from input_files left join loaded_inputs using (fingerprint)
        where found = 'changed' and ($source is null or input_files.source = $source)
          and ($since is null or seen_at >= $since)
        group by all order by seen_at desc, name
        """,
        {"source": source, "since": since},
    ).fetchall()
    return [ChangedFile(owner, name, seen_at, int(new)) for owner, name, seen_at, new in rows]
