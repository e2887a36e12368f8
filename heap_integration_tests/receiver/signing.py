"""Signs as the vendors do, written from their descriptions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

USERFLOW_SECRET = "userflow-5ekret"
SEGMENT_SECRET = "segment-5ekret"


def userflow_headers(body: bytes, *, secret: str = USERFLOW_SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers of one of Userflow's notifications."""
    stamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Userflow-Signature": f"t={stamp},v1={digest}", "Content-Type": "application/json"}


def heap_headers(body: bytes, *, secret: str = SEGMENT_SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers of one of Heap's Segment Sync calls."""
    stamp = str(int((time.time() if at is None else at) * 1000))
    digest = hmac.new(secret.encode(), stamp.encode() + body, hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    return {"Heap-Hash": f"ts:{stamp},hmac:{signature}", "Content-Type": "application/json"}
