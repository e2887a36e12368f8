"""Signs as the vendors do, written from their descriptions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

USERFLOW_SECRET = "userflow-5ekret"
USERPILOT_SECRET = "userpilot-5ekret"
SEGMENT_SECRET = "segment-5ekret"
HEAP_USER, HEAP_PASSWORD = "heap", "heap-5ekret"

JSON = {"Content-Type": "application/json"}


def userflow_headers(body: bytes, *, secret: str = USERFLOW_SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers of one of Userflow's notifications."""
    stamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Userflow-Signature": f"t={stamp},v1={digest}", **JSON}


def userpilot_headers(body: bytes, *, secret: str = USERPILOT_SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers of one of Userpilot's webhooks: what is signed is the body, then the time."""
    stamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), body + f".{stamp}".encode(), hashlib.sha256).hexdigest()
    return {"X-Signature": f"t={stamp},v1={digest}", **JSON}


def heap_headers(body: bytes, *, secret: str = SEGMENT_SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers of one of Heap's Segment Sync calls."""
    stamp = str(int((time.time() if at is None else at) * 1000))
    digest = hmac.new(secret.encode(), stamp.encode() + body, hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    return {"Heap-Hash": f"ts:{stamp},hmac:{signature}", **JSON}


def basic(user: str, password: str = "") -> dict[str, str]:
    """Return the headers of a call that proves itself by a user and a password, or a write key."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(), **JSON}
