"""What an environment's YAML may say of Heap Connect: where Heap's data comes from and how it is asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from heap_integration.settings import Name, Secret, Settings, WebAddress


class DumpsSettings(Settings):
    """Heap Connect for S3: the bucket into which Heap writes its dumps.

    ``bucket`` is the bucket's address, ``s3://heap-rs3-...``, or a folder that holds a copy of it. ``credentials`` is
    the variable that holds the object storage's options as JSON, as for files of events; without it the machine's
    own identity is used. ``skip_dumps`` are the numbers of dumps that are never loaded, as one that is broken for
    good. ``time_columns`` hold times, written as text or as a number. ``lost_columns``: keep leaves a column that Heap
    no longer sends, empty in what comes.
    """

    bucket: Name
    credentials: Secret | None = None
    skip_tables: tuple[Name, ...] = ("_event_metadata",)
    skip_dumps: tuple[int, ...] = ()
    time_columns: tuple[Name, ...] = ("time", "joindate", "last_modified")
    lost_columns: Literal["keep", "drop"] = "keep"
    enabled: bool = True


class TablesSettings(Settings):
    """Heap Connect tables that Heap itself writes into this warehouse, read in place.

    ``database`` is the database or project where it isn't the warehouse's own. ``migrations_applied`` says that Heap
    has given the rows of merged users their new id, as it does everywhere but on S3. ``sync_info`` is Heap's own table
    of its syncs. Data older than ``stale_after_hours`` is a warning.
    """

    database: str | None = None
    db_schema: Name = Field(alias="schema")
    migrations_applied: bool = True
    sync_info: Name | None = "_sync_info"
    stale_after_hours: float = Field(default=26, gt=0)


class QueryApiSettings(Settings):
    """The HTTP form of Connect SQL, ``POST <url>/api/connect/query``; it is no part of Heap's published API."""

    url: WebAddress
    key: Secret


class HeapConnectSettings(Settings):
    """Heap's data in the warehouse: by dumps (``s3``) or in place (``tables``), and what a query may take.

    ``event_names`` says which event a table is about; without it, an event that a funnel names, else the table's name.
    ``query_rows`` and ``query_seconds`` limit a query whose caller names no limit.
    """

    s3: DumpsSettings | None = None
    tables: TablesSettings | None = None
    api: QueryApiSettings | None = None
    event_names: dict[Name, Name] = Field(default_factory=dict)
    query_rows: int = Field(default=1_000_000, gt=0)
    query_seconds: float = Field(default=300, gt=0)
