"""Analytical state: events, their outcomes, memberships and baselines."""

from heap_integration.warehouse.duck import Warehouse, WarehouseError

__all__ = ["Warehouse", "WarehouseError"]
