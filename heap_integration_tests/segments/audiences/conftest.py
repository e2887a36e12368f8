"""Fixtures of the tests of audiences."""

from heap_integration_tests.support.postgres import postgres

__all__ = ["postgres"]
