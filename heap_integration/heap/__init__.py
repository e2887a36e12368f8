"""Heap's own surfaces."""
