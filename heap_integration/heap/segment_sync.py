"""Heap's Segment Sync webhook: who entered and who left a segment since the last call, in pages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Action = Literal["segment.users.sync", "segment.users.drain"]

SYNC: Final = "segment.users.sync"
DRAIN: Final = "segment.users.drain"

_PART = re.compile(r"(ts|hmac):([^\s,:]+)")
_MILLISECONDS = re.compile(r"[0-9]{1,15}")


class BadSignature(Exception):
    """The call isn't signed with this webhook's secret."""


class BadTimestamp(BadSignature):
    """The signature can't be checked: the header is malformed, or its time is too far from ours."""


class BadPage(ValueError):
    """The signed body isn't a page of a segment; the message says what is wrong with it."""


def verify(secret: str, header: str, body: bytes, now: float, *, max_age: float = 60, max_ahead: float = 1) -> int:
    """Check ``Heap-Hash: ts:<milliseconds>,hmac:<base64>`` over the raw body, else over its compact form.

    Heap's description says that the body is signed. Its reference receiver checks the JSON as JavaScript writes it,
    without spaces and escapes, whichever way it came: what that one takes is taken here too, and says the same.
    Returns the signed time in milliseconds; ``now`` and the tolerances are in seconds.

    Raises:
        BadTimestamp: malformed, too old, or from the future.
        BadSignature: signed with another secret, or the body was changed.
    """
    stamp, received = _parts(header)
    age = now - int(stamp) / 1000
    if age > max_age:
        raise BadTimestamp(f"the Heap-Hash header's timestamp is {age:.0f} s old, {max_age:g} s are allowed")
    if -age > max_ahead:
        raise BadTimestamp(f"the Heap-Hash header's timestamp is {-age:.0f} s in the future")
    signature = received.encode(errors="replace")
    if not any(hmac.compare_digest(_digest(secret, stamp, form), signature) for form in _forms(body)):
        raise BadSignature("the signature does not match the webhook secret")
    return int(stamp)


_Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
_Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Int32 = Annotated[int, Field(ge=0, lt=2**31)]


class _Model(BaseModel):
    # What Heap adds to its calls later must not stop them.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Segment(_Model):
    id: _Int64
    name: _Text


class _SyncInfo(_Model):
    page_number: _Int32
    total_pages: Annotated[_Int32, Field(ge=1)]
    sync_task_id: _Text


class _User(_Model):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str | None = None


class _SyncData(_Model):
    segment: _Segment
    sync_info: _SyncInfo
    add: tuple[_User, ...] | None = None
    remove: tuple[_User, ...] | None = None


class _DrainData(_Model):
    segment: _Segment


class _Call(_Model):
    id_token: str | None = None
    action_type: Action
    data: dict[str, Any]


class SegmentPage(_Model):
    """One page of one sync of one segment.

    ``sync_task_id`` and ``page_number`` name the page: Heap sends it again under the same names when
    it isn't sure that it arrived. ``without_id`` counts users whose matching property is empty.
    """

    action: Action
    id_token: str | None
    segment_id: int
    segment_name: str
    sync_task_id: str
    page_number: int
    total_pages: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    without_id: int


def read_page(body: bytes, signed_at: int) -> SegmentPage:
    """Read a verified body; ``signed_at`` is what ``verify`` returned.

    A drain (the segment's sync was switched off: everybody leaves) has no name of its own and gets
    one from the time at which it was signed.

    Raises:
        BadPage: not JSON, or fields are missing or of another type.
    """
    try:
        call = _Call.model_validate(orjson.loads(body))
        if call.action_type == DRAIN:
            return _drain(call, _DrainData.model_validate(call.data), signed_at)
        return _sync(call, _SyncData.model_validate(call.data))
    except orjson.JSONDecodeError as error:
        raise BadPage(f"the body is not JSON: {error}") from None
    except ValidationError as error:
        raise BadPage(_explained(error)) from None


def _sync(call: _Call, data: _SyncData) -> SegmentPage:
    entered, left = data.add or (), data.remove or ()
    added, removed = _identities(entered), _identities(left)
    return SegmentPage(
        action=SYNC,
        id_token=call.id_token,
        segment_id=data.segment.id,
        segment_name=data.segment.name,
        sync_task_id=data.sync_info.sync_task_id,
        page_number=data.sync_info.page_number,
        total_pages=data.sync_info.total_pages,
        added=added,
        removed=removed,
        without_id=len(entered) + len(left) - len(added) - len(removed),
    )


def _drain(call: _Call, data: _DrainData, signed_at: int) -> SegmentPage:
    return SegmentPage(
        action=DRAIN,
        id_token=call.id_token,
        segment_id=data.segment.id,
        segment_name=data.segment.name,
        sync_task_id=f"drain-{data.segment.id}-{signed_at}",
        page_number=1,
        total_pages=1,
        added=(),
        removed=(),
        without_id=0,
    )


def _identities(users: Sequence[_User]) -> tuple[str, ...]:
    return tuple(user.id.strip() for user in users if user.id and user.id.strip())


def _explained(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'the body'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return "; ".join(problems[:5])


def _parts(header: str) -> tuple[str, str]:
    found = [_PART.fullmatch(part.strip()) for part in header.split(",")]
    parts = {part[1]: part[2] for part in found if part}
    if len(found) != len(parts) or parts.keys() != {"ts", "hmac"} or not _MILLISECONDS.fullmatch(parts["ts"]):
        raise BadTimestamp("the Heap-Hash header is not ts:<milliseconds>,hmac:<base64>")
    return parts["ts"], parts["hmac"]


def _forms(body: bytes) -> Iterator[bytes]:
    """Yield what may have been signed: the body as it came, and as JavaScript would have written it."""
    yield body
    with suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
        yield orjson.dumps(orjson.loads(body))


def _digest(secret: str, stamp: str, body: bytes) -> bytes:
    signature = hmac.new(secret.encode(), stamp.encode() + body, hashlib.sha256)
    return base64.b64encode(signature.digest())
