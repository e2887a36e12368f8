"""Both flows at work on real input, with the sandbox on the other side."""

from heap_integration.demo.run import Demo
from heap_integration.demo.services import DemoFailed

__all__ = ["Demo", "DemoFailed"]
