"""Fixtures of the tests of the warehouse."""

from heap_integration_tests.support.postgres import postgres, postgres_database

__all__ = ["postgres", "postgres_database"]
