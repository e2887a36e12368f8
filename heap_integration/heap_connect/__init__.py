"""Heap's data on its way into the warehouse, and questions to it."""
