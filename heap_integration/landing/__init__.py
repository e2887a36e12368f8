"""What has just arrived: append-only segments of JSON lines, each written by one process."""

from __future__ import annotations

from heap_integration.landing.segments import waiting
from heap_integration.landing.writer import LandingClosed, LandingWriter

__all__ = ["LandingClosed", "LandingWriter", "waiting"]
