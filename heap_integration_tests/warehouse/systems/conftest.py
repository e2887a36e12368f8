"""Fixtures of the tests of warehouses."""

from heap_integration_tests.support.postgres import postgres, postgres_database
from heap_integration_tests.support.warehouses import connection, warehouse

__all__ = ["connection", "postgres", "postgres_database", "warehouse"]
