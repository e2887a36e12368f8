"""Userpilot, where membership is a user property of its own for each segment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import quote

import orjson
from pydantic import Field

from heap_integration.delivery.records import (
    BatchRejected,
    Limits,
    MemberChange,
    Outcome,
    ProfileChange,
    Record,
    RetryLater,
    Status,
    Unfit,
    Window,
)
from heap_integration.destinations.destination import (
    Audience,
    DestinationSettings,
    Kind,
    ProfileSet,
    Surroundings,
)
from heap_integration.destinations.http import Api
from heap_integration.settings import Secret, WebAddress

if TYPE_CHECKING:
    import httpx

    from heap_integration.delivery.pace import Pace
    from heap_integration.store import Store

HOSTS = {"us": "https://analytex.userpilot.io", "eu": "https://analytex-eu.userpilot.io"}
VERSION = "2020-09-22"
MEMBER_PROPERTY = "heap_segment_{}"
# The one attribute of a user that is no property: which company it belongs to.
COMPANY = "company_id"

# https://docs.userpilot.com/api-references/real-time/overview
CALLS = Window(600, 60.0)
# https://docs.userpilot.com/api-references/bulk-updates/users
JOB_RECORDS, JOB_BYTES = 10_000, 50_000_000
# https://docs.userpilot.com/api-references/delete/overview; how many ids a request may hold isn't documented.
DELETIONS, DELETED_AT_ONCE = Window(1, 2.0), 1_000
# https://docs.userpilot.com/reference/data-model
MOST_PROPERTIES, LONGEST_NAME, LONGEST_VALUE = 500, 255, 65_535

# So many calls are granted at a time: the pace costs a transaction each time.
CALLS_AT_ONCE = 20
LONGEST_PAUSE = 15.0
LEAST_WAIT = 0.01
ENDED = ("completed", "failed")
CONFLICT, NOT_FOUND = 409, 404
NAMES: dict[Kind, tuple[str, str]] = {"users": ("user_id", "users"), "accounts": ("company_id", "companies")}
# What JSON can hold of whole numbers.
LEAST_INTEGER, PAST_INTEGERS = -(2**63), 2**64

CompanyKey = Literal["both", "company_id", "id"]
Values = Literal["typed", "text"]


class UserpilotSettings(DestinationSettings):
    """Userpilot, where membership is a user property of its own for each segment.

    ``bulk_from`` is how many changes at once go as a job instead of one by one, ``job_minutes`` how long a job
    is waited for, others' that run before it included. Userpilot's own descriptions disagree about two things:
    whether a single call names the company ``company_id`` or ``id`` (``company_key``), and whether properties
    may be numbers and booleans or only text (``values``).
    """

    title: ClassVar[str] = "Userpilot"
    profile_kinds: ClassVar[frozenset[Kind]] = frozenset({"users", "accounts"})
    creates_always: ClassVar[bool] = True

    api_key: Secret
    base_url: WebAddress | None = None
    region: Literal["us", "eu"] = "us"
    bulk_from: int = Field(100, ge=2, le=1_000)
    job_minutes: int = Field(60, ge=1)
    company_key: CompanyKey = "both"
    values: Values = "typed"

    @property
    def url(self) -> str:
        """The address of Userpilot's API."""
        return self.base_url or HOSTS[self.region]

    def connect(self, surroundings: Surroundings) -> Userpilot:
        """Open Userpilot; see ``DestinationSettings.connect``."""
        return Userpilot(self, self.api_key.value(surroundings.variables), surroundings.store)


class Userpilot:
    """The users and companies of one Userpilot environment, which the API key selects.

    Raises:
        ValueError: the key can't be one; it isn't repeated.
    """

    def __init__(
        self,
        settings: UserpilotSettings,
        api_key: str,
        store: Store,
        *,
        first_pause: float = 0.5,
        client: httpx.Client | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.first_pause = first_pause
        self.api = Api(
            "Userpilot",
            settings.url,
            headers={
                "authorization": f"Token {api_key}",
                "x-api-version": VERSION,
                "accept": "application/json, text/plain, */*",
            },
            secrets=[api_key],
            key_advice="Check the Userpilot API key of this environment (not the app token)",
            client=client,
        )

    def check(self) -> str:
        """Have Userpilot validate the key; see ``Destination.check``."""
        self.api.call("GET", "/v1/validate")
        return f"Userpilot at {self.settings.url} takes the key"

    def members(self, audience: Audience) -> PropertySender:
        """Return what writes membership as the user property ``heap_segment_<slug>``.

        Userpilot makes a user of every id: ``audience.create`` can't keep it from that.
        """
        name = MEMBER_PROPERTY.format(audience.slug)
        return PropertySender(self, "users", lambda change: _membership(name, change))

    def profiles(self, profiles: ProfileSet) -> PropertySender:
        """Return what writes properties; a user's ``company_id`` is no property but moves the user there."""
        return PropertySender(self, profiles.of, lambda change: _profile(profiles.of, change))

    def existing(self, audience: Audience) -> Iterator[str] | None:  # noqa: ARG002 - there is nothing to ask
        """Userpilot can't be asked who has a property."""
        return None

    def deletions(self, of: Kind) -> DeletionSender:
        """Return what deletes users or companies with all their data; the records' payloads are their ids."""
        return DeletionSender(self, of)

    def close(self) -> None:
        """Close the connections."""
        self.api.close()


@dataclass(frozen=True, slots=True)
class Told:
    """What one record tells: properties by name, and the company to belong to, if that is told."""

    identity: str
    properties: dict[str, Any]
    company: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One record on its way: its place in the batch, and what is sent of it."""

    place: int
    key: bytes
    body: bytes


class PropertySender:
    """Writes properties of users or companies: few one by one, many as a job.

    A batch of fewer than ``bulk_from`` records goes one by one, at 600 calls a minute over all processes; else
    it is one job, and the batch is acknowledged when the job has completed. Userpilot runs one job at a time and
    names no culprits: a job that failed, or took fewer records than it was given, is halved until the halves are
    few enough to go one by one. To send a batch again changes nothing; one that is sent again by the same sender
    goes on where it stopped.
    """

    def __init__(self, userpilot: Userpilot, of: Kind, told: Callable[[Any], Told]) -> None:
        self.limits = Limits(
            batch_records=JOB_RECORDS, batch_bytes=JOB_BYTES, seconds=userpilot.settings.job_minutes * 60
        )
        self._settings = userpilot.settings
        self._api = userpilot.api
        self._first_pause = self._pause = userpilot.first_pause
        # It brings SQLAlchemy: listing the assets of an environment needs none.
        from heap_integration.delivery.pace import Pace

        self._pace = Pace(userpilot.store, "Userpilot calls", (CALLS,))
        self._of = of
        self._told = told
        self._id_name, self._plural = NAMES[of]
        self._taken: dict[bytes, bytes] = {}
        self._job: tuple[bytes, str] | None = None

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Send a batch; see ``Sender.send``. What breaks a limit of Userpilot's is rejected without being sent."""
        as_job = len(batch) >= self._settings.bulk_from
        refused: dict[bytes, str] = {}
        items: list[Item] = []
        for place, record in enumerate(batch):
            try:
                told = self._told(record.payload)
                if told.properties or told.company is not None:
                    items.append(Item(place, record.key, self._body(told, as_job=as_job)))
            except Unfit as reason:
                refused[record.key] = str(reason)
        if items and as_job:
            self._run_job(items)
        else:
            self._call_for_each(items)
        return [_outcome(record.key, refused.get(record.key)) for record in batch]

    def _body(self, told: Told, *, as_job: bool) -> bytes:
        if not told.identity:
            raise Unfit("the id is empty")
        if len(told.properties) > MOST_PROPERTIES:
            raise Unfit(f"more than the {MOST_PROPERTIES} properties that Userpilot takes")
        values = {name: self._value(name, value) for name, value in told.properties.items()}
        body: dict[str, Any] = {self._id_name: told.identity, "metadata": values}
        if told.company is not None and as_job:
            body[COMPANY] = told.company
        elif told.company is not None:
            key = self._settings.company_key
            body["company"] = dict.fromkeys(["id", COMPANY] if key == "both" else [key], told.company)
        try:
            return orjson.dumps(body)
        except TypeError:
            raise Unfit("it holds text that is not Unicode") from None

    def _value(self, name: str, value: Any) -> Any:
        if not 0 < len(name) <= LONGEST_NAME:
            raise Unfit(f"a property's name is empty or longer than the {LONGEST_NAME} characters that Userpilot takes")
        if isinstance(value, str):
            if len(value) > LONGEST_VALUE:
                raise Unfit(f"{name!r} is longer than the {LONGEST_VALUE:,} characters that Userpilot takes")
            return value
        # What isn't finite would be written as null, which removes the property.
        if value is not None and not _is_number(value):
            raise Unfit(f"{name!r} is neither text nor a number, a boolean or a date, and Userpilot takes nothing else")
        if value is None or self._settings.values == "typed":
            return value
        return orjson.dumps(value).decode()

    # one by one

    def _call_for_each(self, items: Sequence[Item]) -> None:
        """Send what this sender hasn't sent yet, in order."""
        waiting = [item for item in items if self._taken.get(item.key) != item.body]
        while waiting:
            with _leave(self._pace, [Record(item.key, None) for item in waiting[:CALLS_AT_ONCE]]) as calls:
                for item in waiting[:calls]:
                    self._call(item)
            waiting = waiting[calls:]
        self._taken.clear()

    def _call(self, item: Item) -> None:
        path = "/v1/identify" if self._of == "users" else "/v1/companies/identify"
        answer = self._post(path, item.body)
        if not answer.is_success:
            failure = self._api.failure(answer)
            if isinstance(failure, BatchRejected):
                failure.culprit = item.place
            raise failure
        self._taken[item.key] = item.body

    def _post(self, path: str, body: bytes) -> httpx.Response:
        return self._api.ask("POST", path, content=body, headers={"content-type": "application/json"})

    # jobs

    def _run_job(self, items: Sequence[Item]) -> None:
        body = b'{"%b":[%b]}' % (self._plural.encode(), b",".join([item.body for item in items]))
        if len(body) > JOB_BYTES:
            raise BatchRejected(f"larger than the {JOB_BYTES // 1_000_000} MB that Userpilot takes at once")
        if self._job is None or self._job[0] != body:
            self._job = (body, self._hand_in(body))
        job = self._look_at(self._job[1])
        status, done = job.get("status"), job.get("completed_rows")
        if status not in ENDED:
            raise self._later(f"Userpilot works off a bulk job: {status}, {done or 0} of {len(items)} records")
        self._job, self._pause = None, self._first_pause
        if status == "failed":
            raise BatchRejected("a bulk job of Userpilot's failed, and it doesn't say which record is wrong")
        if isinstance(done, int) and done < len(items):
            raise BatchRejected("a bulk job of Userpilot's left out records, and it doesn't say which")

    def _hand_in(self, body: bytes) -> str:
        """Hand a job in and return its id."""
        answer = self._post(f"/v1/{self._plural}/bulk_identify", body)
        if answer.status_code == CONFLICT:
            raise self._later("another bulk job of this Userpilot environment still runs")
        if not answer.is_success:
            raise self._api.failure(answer)
        job = self._api.object(answer)
        if not isinstance(job.get("job_id"), str):
            raise RetryLater("Userpilot's answer names no job")
        self._pause = self._first_pause
        return str(job["job_id"])

    def _look_at(self, job_id: str) -> Mapping[str, Any]:
        """Return a job as Userpilot tells it."""
        answer = self._api.ask("GET", f"/v1/background_jobs/{quote(job_id, safe=':')}")
        if answer.status_code == NOT_FOUND:
            self._job = None
            raise RetryLater("Userpilot doesn't know its own bulk job any more")
        if not answer.is_success:
            raise self._api.failure(answer)
        return self._api.object(answer)

    def _later(self, why: str) -> RetryLater:
        """Ask for patience, each time for longer: a job of few records ends soon, one of many takes minutes."""
        pause, self._pause = self._pause, min(self._pause * 1.5, LONGEST_PAUSE)
        return RetryLater(why, after=pause, busy=True)


class DeletionSender:
    """Has users or companies deleted, which Userpilot does once a day at 2:00 UTC; to ask again changes nothing."""

    limits = Limits(batch_records=DELETED_AT_ONCE)

    def __init__(self, userpilot: Userpilot, of: Kind) -> None:
        self._api = userpilot.api
        from heap_integration.delivery.pace import Pace

        self._pace = Pace(userpilot.store, "Userpilot deletions", (DELETIONS,))
        self._plural = NAMES[of][1]

    def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """Name the users or companies to delete; see ``Sender.send``."""
        # A request counts, not its ids.
        with _leave(self._pace, [Record(b"", None)]):
            self._api.call("DELETE", f"/v1/{self._plural}", json={self._plural: [record.payload for record in batch]})
        return [Outcome(record.key, Status.ACCEPTED) for record in batch]


def _membership(name: str, change: MemberChange) -> Told:
    return Told(change.identity, {name: change.member})


def _profile(of: Kind, profile: ProfileChange) -> Told:
    properties: dict[str, Any] = {}
    company: str | None = None
    for change in profile.changes:
        if change.operation not in ("set", "clear"):
            raise Unfit(f"Userpilot can't {change.operation}, it can only set a property")
        value = change.value if change.operation == "set" else None
        if of == "users" and change.name == COMPANY:
            company = _company(value)
        else:
            properties[change.name] = value
    return Told(profile.identity, properties, company)


def _company(value: Any) -> str:
    if value is None or value == "":
        raise Unfit("Userpilot can't take a user out of a company")
    if not isinstance(value, str | int):
        raise Unfit(f"{COMPANY} is no company's id")
    return str(value)


def _is_number(value: Any) -> bool:
    """Say whether JSON can hold a number, or a boolean, which Python counts among them."""
    if isinstance(value, int):
        return LEAST_INTEGER <= value < PAST_INTEGERS
    return isinstance(value, float) and math.isfinite(value)


def _outcome(key: bytes, refused: str | None) -> Outcome:
    return Outcome(key, Status.ACCEPTED) if refused is None else Outcome(key, Status.REJECTED, refused)


@contextmanager
def _leave(pace: Pace, calls: Sequence[Record]) -> Iterator[int]:
    """Say how many of the calls may be made now; all count from the moment when they have been made.

    Raises:
        RetryLater: none may.
    """
    grant = pace.ask(calls)
    if not grant.records:
        why = f"the {pace.name} of this environment have used up what Userpilot takes"
        raise RetryLater(why, after=max(grant.wait, LEAST_WAIT), busy=True)
    try:
        yield len(grant.records)
    finally:
        with pace.store.begin() as connection:
            pace.done(grant, connection)
