"""The web application that takes what other systems push to the hub."""

from __future__ import annotations

from heap_integration.receiver.app import create_app
from heap_integration.receiver.server import serve
from heap_integration.receiver.settings import Client, ReceiverSettings

__all__ = ["Client", "ReceiverSettings", "create_app", "serve"]
