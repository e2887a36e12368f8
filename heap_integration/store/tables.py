"""The tables of the operational state; the same on SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

VERSION = 1

# SQLite numbers rows by itself only where the column is exactly INTEGER PRIMARY KEY, and never gives
# the number of a deleted row to a new one only with AUTOINCREMENT: other places remember these numbers.
_Number = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

ledger_batches = Table(
    "ledger_batches",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("flow", Text, nullable=False),
    Column("created_at", Float(53), nullable=False, comment="seconds since the epoch"),
    Column("records", Integer, nullable=False),
    Column("keys", LargeBinary, nullable=False, comment="16 bytes a record"),
    Column("statuses", LargeBinary, nullable=False, comment="one byte a record"),
    Column("attempts", Integer, nullable=False),
    Column("settled", Integer, nullable=False, comment="1 when the warehouse knows the batch"),
    Index("ledger_batches_by_flow", "flow", "settled"),
    sqlite_autoincrement=True,
)

ledger_reasons = Table(
    "ledger_reasons",
    metadata,
    Column("batch_id", _Number, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False, comment="from 0, in the batch"),
    Column("status", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)

rate_grants = Table(
    "rate_grants",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("limiter", Text, nullable=False),
    Column("at", Float(53), nullable=False, comment="seconds since the epoch"),
    Column("records", Integer, nullable=False),
    Column("keys", LargeBinary, nullable=False),
    # With the number of records in it the index alone answers how much of a window is used.
    Index("rate_grants_by_limiter", "limiter", "at", "records"),
    sqlite_autoincrement=True,
)

segment_pages = Table(
    "segment_pages",
    metadata,
    Column("sync_task_id", Text, primary_key=True),
    Column("page_number", Integer, primary_key=True, autoincrement=False),
    Column("total_pages", Integer, nullable=False),
    Column("segment_id", BigInteger, nullable=False),
    Column("segment_name", Text, nullable=False),
    Column("added", Text, nullable=False, comment="JSON list of identities"),
    Column("removed", Text, nullable=False, comment="JSON list of identities"),
    Column("action", Text, nullable=False),
    Column("received_at", Float(53), nullable=False, comment="seconds since the epoch"),
    Index("segment_pages_by_segment", "segment_id", "received_at"),
)

landing_lines = Table(
    "landing_lines",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("line", LargeBinary, nullable=False),
    Column("segment", Text, comment="what the line is loaded with, once it is decided"),
    Index("landing_lines_by_segment", "segment", "id"),
    sqlite_autoincrement=True,
)

identified_users = Table(
    "identified_users",
    metadata,
    Column("heap_user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("identity", Text, nullable=False),
    Column("at", Float(53), nullable=False, comment="seconds since the epoch"),
    Index("identified_users_by_identity", "identity", "at"),
)

opt_outs = Table(
    "opt_outs",
    metadata,
    Column("identity", Text, primary_key=True),
    Column("at", Float(53), nullable=False, comment="seconds since the epoch"),
    Column("origin", Text, nullable=False),
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
