"""The web application that takes what other systems push to the hub."""

from __future__ import annotations

from heap_integration.receiver.app import create_app
from heap_integration.receiver.server import serve

__all__ = ["create_app", "serve"]
