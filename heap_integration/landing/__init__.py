"""What has just arrived: durable before its sender hears of it, taken in exactly once."""

from __future__ import annotations

from heap_integration.landing.arrivals import FolderArrivals
from heap_integration.landing.commits import LandingClosed, LandingUnavailable
from heap_integration.landing.in_store import StoreArrivals, StoreLanding
from heap_integration.landing.interface import Arrivals, Landing, Segment
from heap_integration.landing.segments import waiting
from heap_integration.landing.writer import LandingWriter

__all__ = [
    "Arrivals",
    "FolderArrivals",
    "Landing",
    "LandingClosed",
    "LandingUnavailable",
    "LandingWriter",
    "Segment",
    "StoreArrivals",
    "StoreLanding",
    "waiting",
]
