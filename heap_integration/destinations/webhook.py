"""Any HTTPS endpoint that verifies Standard Webhooks signatures."""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import orjson
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from heap_integration.delivery.records import (
    AMBIGUOUS_THERE,
    UNKNOWN_THERE,
    BatchRejected,
    Limits,
    MemberChange,
    NotAuthorised,
    Outcome,
    ProfileChange,
    Record,
    RetryLater,
    Status,
)
from heap_integration.destinations.addresses import AddressRefused, Answer, Caller, NoAnswer, allowed
from heap_integration.destinations.destination import (
    Audience,
    DestinationSettings,
    Kind,
    Operation,
    ProfileSet,
    Surroundings,
)
from heap_integration.destinations.http import BUSY, REFUSED, TIMED_OUT, retry_after, shown
from heap_integration.settings import KeyPart, Name, Secret, address_parts, is_web_address

if TYPE_CHECKING:
    from standardwebhooks import Webhook as Signer

    from heap_integration.store import Store

MEMBERS, PROFILES = "segment.members.changed", "profiles.changed"
# What many servers take at most is a megabyte.
CALL_BYTES = 900_000
GONE, WRONG_ADDRESS = 410, (404, 405)
# What an endpoint may say of a record that it refuses.
KINDS = {"unknown": UNKNOWN_THERE, "ambiguous": AMBIGUOUS_THERE}
# For so long after its last call the changes of a run that didn't end keep their names. The shortest cadence is a
# quarter of an hour: what somebody undoes and does again meanwhile must not bear the name of the first time.
SAME_NAMES_SECONDS, NOTE_SECONDS = 1_800.0, 60.0
KEY_PREFIX, KEY_BYTES = "whsec_", (24, 64)
KEY_FORM = (
    "must be whsec_ and 24 to 64 bytes in base64; this makes one: "
    "python -c \"import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)


def _endpoint(given: str) -> str:
    address = address_parts(given)
    if not is_web_address(address) or address.fragment:
        raise PydanticCustomError("address", "must be like https://host/path, without a user, a password or a #")
    return given


def _readable(given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        allowed(given)
    except ValueError as error:
        raise PydanticCustomError("allow_addresses", "{why}", {"why": str(error)}) from None
    return given


class WebhookSettings(DestinationSettings):
    """An endpoint of the customer's own, called with signed batches.

    ``allow_addresses`` are networks (CIDR) or hosts that may be called though they are internal; every other
    address of a private network, of this machine or of a cloud's metadata service is refused. While a secret is
    exchanged, ``previous_secret`` signs too: a receiver may know either.
    """

    title: ClassVar[str] = "a webhook"
    profile_kinds: ClassVar[frozenset[Kind]] = frozenset({"users", "accounts"})
    operations: ClassVar[frozenset[Operation]] = frozenset({"set", "set_once", "add", "append"})
    identified_by: ClassVar[frozenset[str]] = frozenset({"identity", "email"})

    name: KeyPart
    url: Annotated[str, AfterValidator(_endpoint)]
    secret: Secret
    previous_secret: Secret | None = None
    records_per_call: int = Field(100, ge=1, le=1000)
    concurrency: int = Field(4, ge=1, le=32)
    allow_addresses: Annotated[tuple[Name, ...], AfterValidator(_readable)] = ()

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if self.url.startswith("http:") and not self.allow_addresses:
            raise PydanticCustomError("address", "url must be https, unless allow_addresses names where it leads")
        return self

    def connect(self, surroundings: Surroundings) -> Webhook:
        """Open the webhook; see ``DestinationSettings.connect``."""
        return Webhook(self, surroundings)


class Webhook:
    """One endpoint, called under https://www.standardwebhooks.com: each call has an id, a time and a signature.

    Raises:
        MissingSecret: the variable of a secret isn't set.
        ValueError: a secret can't be one; it isn't repeated.
    """

    def __init__(self, settings: WebhookSettings, surroundings: Surroundings) -> None:
        self.settings = settings
        self.environment = surroundings.environment
        self._store = surroundings.store
        held = [settings.secret, *([settings.previous_secret] if settings.previous_secret else [])]
        self._signers = [_signer(secret.value(surroundings.variables), secret.env) for secret in held]
        self._caller = Caller(settings.url, settings.allow_addresses, settings.concurrency)
        self._names: list[Names] = []

    def check(self) -> str:
        """Prove the address and its certificate; the secret proves itself with the first call."""
        self._stop_if_gone()
        try:
            return f"{self.settings.name}: {self._caller.greet()}; the first call will show whether the secret is right"
        except AddressRefused as refused:
            raise NotAuthorised(str(refused)) from None
        except NoAnswer as error:
            raise RetryLater(f"no answer from {self._who}: {error}") from error

    def members(self, audience: Audience) -> Calls:
        """Return what tells who enters and leaves an audience."""
        head = {
            "audience": {"slug": audience.slug, "name": audience.name},
            "identified_by": audience.identified_by,
            "create": audience.create,
        }
        return Calls(self, MEMBERS, head, _member, self._named(f"members {audience.slug}"))

    def profiles(self, profiles: ProfileSet) -> Calls:
        """Return what tells how users or accounts change."""
        head = {"of": profiles.of, "identified_by": profiles.identified_by, "create": profiles.create}
        return Calls(self, PROFILES, head, _profile, self._named(f"profiles {profiles.slug}"))

    def existing(self, audience: Audience) -> Iterator[str] | None:  # noqa: ARG002
        """Return ``None``: a webhook can't be asked."""
        return None

    def call(self, name: str, body: bytes) -> Answer:
        """Send a signed body under a name, and return the answer of a success.

        Raises:
            RetryLater, BatchRejected, NotAuthorised: see ``Sender.send``.
        """
        self._stop_if_gone()
        now, text = datetime.now(UTC), body.decode()
        signatures = [signer.sign(name, now, text) for signer in self._signers]
        headers = {
            "content-type": "application/json",
            "user-agent": "heap-integration",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
        try:
            answer = self._caller.post(body, headers)
        except AddressRefused as refused:
            raise NotAuthorised(str(refused)) from None
        except NoAnswer as error:
            raise RetryLater(f"no answer from {self._who}: {error}") from error
        if answer.status == GONE:
            self._gone_since = now.isoformat(timespec="seconds")
            self._store.remember(_gone_key(self.settings.name), [self.settings.url, self._gone_since])
        self._stop_if_gone()
        if not 200 <= answer.status < 300:
            raise self._failure(answer)
        return answer

    def close(self) -> None:
        """Close the connections."""
        for names in self._names:
            names.close()
        self._caller.close()

    @property
    def _who(self) -> str:
        return f"the webhook {self.settings.name}"

    def _named(self, stream: str) -> Names:
        self._names.append(Names(self._store, f"webhook {self.settings.name} {stream}"))
        return self._names[-1]

    @cached_property
    def _gone_since(self) -> str | None:
        url, since = self._store.recall(_gone_key(self.settings.name)) or (None, None)
        return since if url == self.settings.url else None

    def _stop_if_gone(self) -> None:
        if self._gone_since:
            raise NotAuthorised(
                f"{self._who} answered 410 (gone) at {self._gone_since}: nothing more is sent there until its url "
                f"changes, or: heap-integration enable-webhook {self.settings.name} -e {self.environment}"
            )

    def _failure(self, answer: Answer) -> RetryLater | NotAuthorised | BatchRejected:
        status = answer.status
        words = f"{self._who} answered {status}: {shown(answer.body.decode(errors='replace')) or 'without a reason'}"
        if status in BUSY:
            return RetryLater(words, after=retry_after(answer.headers), busy=True)
        if status >= 500 or status == TIMED_OUT:
            return RetryLater(words)
        if status < 400:
            place = shown(answer.headers.get("location", "")) or "nowhere"
            return NotAuthorised(f"{self._who} answered {status} and points to {place}: redirects are not followed")
        if status in REFUSED:
            return NotAuthorised(f"{words}. Check that both sides have the same secret")
        if status in WRONG_ADDRESS:
            return NotAuthorised(f"{words}. Check the webhook's url")
        return BatchRejected(words)


def enable_again(store: Store, name: str) -> bool:
    """Let a webhook that answered 410 be called again, and return whether it was disabled."""
    was = store.recall(_gone_key(name)) is not None
    store.remember(_gone_key(name), None)
    return was


class Names:
    """Names calls and records: the same again when they are repeated, others when the same happens another time.

    A record's key names a change for ever: that somebody enters, leaves and enters again is twice the same key. What
    tells the two apart is kept in the store from the first call of a run to its end, so a run that was killed, or whose
    last calls stayed without an answer, repeats its names.
    """

    def __init__(self, store: Store, key: str, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._unanswered = set[str]()
        self._salt = b""
        self._inherited = False
        self._noted = 0.0

    def of(self, keys: Sequence[bytes]) -> tuple[str, list[str]]:
        """Return the name of a call with these records, and each record's own."""
        with self._lock:
            self._note()
        names = [blake2b(key, digest_size=16, key=self._salt).hexdigest() for key in keys]
        call = "msg_" + blake2b("".join(names).encode(), digest_size=16, key=self._salt).hexdigest()
        self._unanswered.add(call)
        return call, names

    def answered(self, call: str) -> None:
        """Take note of a call whose fate is known."""
        self._unanswered.discard(call)

    def close(self) -> None:
        """End the run."""
        from sqlalchemy.exc import SQLAlchemyError

        if self._salt and not self._unanswered:
            # Where the store is away the names stay, as after a kill.
            with suppress(SQLAlchemyError):
                self._store.remember(self._key, None)

    def _note(self) -> None:
        """Keep what the names are made with, and now and then that they are still in use."""
        now = self._clock()
        if not self._salt:
            kept, since = self._store.recall(self._key) or ("", 0.0)
            self._inherited = bool(kept) and 0 <= now - since < SAME_NAMES_SECONDS
            self._salt = bytes.fromhex(kept) if self._inherited else secrets.token_bytes(16)
        # What was inherited ends in time whatever happens to this run.
        if not self._inherited and now - self._noted >= NOTE_SECONDS:
            self._store.remember(self._key, (self._salt.hex(), now))
            self._noted = now


@dataclass(frozen=True)
class Calls:
    """Sends changes of one kind; ``head`` is what all of them have in common."""

    webhook: Webhook
    type: str
    head: Mapping[str, Any]
    entry: Callable[[Any], dict[str, Any]]
    names: Names

    @property
    def limits(self) -> Limits:
        """As the settings say."""
        settings = self.webhook.settings
        return Limits(batch_records=settings.records_per_call, batch_bytes=CALL_BYTES, concurrency=settings.concurrency)

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send a batch as one call; see ``Sender.send``."""
        call, names = self.names.of([record.key for record in batch])
        body = {
            "type": self.type,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "environment": self.webhook.environment,
            **self.head,
            "records": [{"id": name, **self.entry(record.payload)} for name, record in zip(names, batch, strict=True)],
        }
        try:
            refusals = _refusals(self.webhook.call(call, orjson.dumps(body)), len(batch))
        except (BatchRejected, NotAuthorised):
            self.names.answered(call)
            raise
        self.names.answered(call)
        return [_outcome(record, refusals.get(place)) for place, record in enumerate(batch)]


def _member(change: MemberChange) -> dict[str, Any]:
    return {"identity": change.identity, "member": change.member}


def _profile(change: ProfileChange) -> dict[str, Any]:
    changes = [{"name": each.name, "operation": each.operation, "value": each.value} for each in change.changes]
    return {"identity": change.identity, "leaving": change.leaving, "changes": changes}


@dataclass(frozen=True)
class _Refusal:
    reason: str
    # What the hub calls it that the endpoint doesn't know somebody, or knows several.
    kind: str = ""


def _refusals(answer: Answer, records: int) -> Mapping[int, _Refusal]:
    """Return which records a success refused, by their places in the call.

    Raises:
        RetryLater: the answer says that there are some, and not which.
    """
    try:
        told = orjson.loads(answer.body)
    except ValueError:
        return {}
    listed = told.get("rejected") if isinstance(told, dict) else None
    if not listed:
        return {}
    found = dict[int, _Refusal]()
    for each in listed if isinstance(listed, list) else [listed]:
        place = each.get("index") if isinstance(each, dict) else None
        if type(place) is not int or not 0 <= place < records:
            raise RetryLater(
                'the webhook\'s answer can\'t be read: rejected must be [{"index": 0, "reason": "…"}], '
                f"with places from 0 to {records - 1}"
            )
        kind = next((words for name, words in KINDS.items() if each.get(name) is True), "")
        found[place] = _Refusal(shown(str(each.get("reason") or "")), kind)
    return found


def _outcome(record: Record, refusal: _Refusal | None) -> Outcome:
    if refusal is None:
        return Outcome(record.key, Status.ACCEPTED)
    leaves = not record.payload.member if isinstance(record.payload, MemberChange) else record.payload.leaving
    if refusal.kind == UNKNOWN_THERE and leaves:
        # Who isn't known is no member: a removal has reached its end.
        return Outcome(record.key, Status.ACCEPTED)
    reason = ": ".join(filter(None, (refusal.kind, refusal.reason)))
    return Outcome(record.key, Status.REJECTED, reason or "the webhook refused it without a reason")


def _signer(secret: str, variable: str) -> Signer:
    from standardwebhooks import Webhook as Signer

    encoded = secret.removeprefix(KEY_PREFIX)
    key: Collection[int] = b""
    with suppress(binascii.Error, ValueError):
        key = base64.b64decode(encoded, validate=True)
    least, most = KEY_BYTES
    if encoded == secret or not least <= len(key) <= most:
        raise ValueError(f"the webhook secret in {variable} {KEY_FORM}")
    return Signer(secret)


def _gone_key(name: str) -> str:
    return f"webhook {name} gone"
