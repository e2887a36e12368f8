"""Operational state that many processes write in small steps: SQLite or PostgreSQL."""

from __future__ import annotations

from heap_integration.store.locks import Busy
from heap_integration.store.store import Store, StoreError, insert_new

__all__ = ["Busy", "Store", "StoreError", "insert_new"]
