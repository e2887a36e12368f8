"""Signatures of webhooks that bear a moment: ``t=<time>,v1=<signature>``."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

# from here on a number is a moment in milliseconds
_MILLISECONDS = 100_000_000_000
_LONGEST_STAMP = 20


class BadSignature(Exception):
    """A notification that its vendor did not sign, or not just now."""


def verify_stamped(
    name: str,
    header: str,
    secret: str,
    signed: Callable[[bytes], bytes],
    now: float,
    *,
    tolerance: float,
    algorithm: str = "sha256",
) -> None:
    """Check a header ``t=<seconds or milliseconds>,v1=<HMAC as hex or base64>``.

    ``signed`` makes the signed text of the moment as it stands in the header; ``now`` is in seconds.

    Raises:
        BadSignature: malformed, further than ``tolerance`` seconds from now, or of another secret or text.
    """
    parts = dict(part.strip().partition("=")[::2] for part in header.split(","))
    stamp, signature = parts.get("t", ""), parts.get("v1", "").encode(errors="replace")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= _LONGEST_STAMP and signature):
        raise BadSignature(f"the {name} header is not t=<seconds>,v1=<hex>")
    digest = hmac.digest(secret.encode(), signed(stamp.encode()), algorithm)
    if not (
        hmac.compare_digest(digest.hex().encode(), signature.lower())
        | hmac.compare_digest(base64.b64encode(digest), signature)
    ):
        raise BadSignature("the signature does not match the signing secret")
    moment = int(stamp) / (1000 if int(stamp) >= _MILLISECONDS else 1)
    if abs(now - moment) > tolerance:
        raise BadSignature(f"the signature is not from the last {tolerance:g} seconds")
