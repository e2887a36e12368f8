"""A customer's endpoint gets each change signed and under a name of its own, and nobody else gets any."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from pydantic import ValidationError
from ruamel.yaml import YAML
from standardwebhooks import Webhook as Verifier

from heap_integration.delivery.engine import DeliveryStopped, Patience, Tally, deliver
from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import (
    AMBIGUOUS_THERE,
    UNKNOWN_THERE,
    AttributeChange,
    MemberChange,
    NotAuthorised,
    ProfileChange,
    Record,
    RetryLater,
    Sender,
)
from heap_integration.destinations.destination import Audience, ProfileSet, Surroundings
from heap_integration.destinations.webhook import SAME_NAMES_SECONDS, Names, Webhook, WebhookSettings, enable_again
from heap_integration.environment import Environment
from heap_integration.sandbox.settings import DEVELOPMENT
from heap_integration.sandbox.state import State
from heap_integration.sandbox.webhook_sink import WebhookSink
from heap_integration.settings import Secret
from heap_integration.store import Store
from heap_integration_tests.support.endpoint import Call, Endpoint, Reply, endpoint
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

ACCOUNTS = ProfileSet("accounts", create=True)

QUICK = Patience(attempts=4, seconds=20, first_wait=0.01, longest_wait=0.02)
assert DEVELOPMENT.webhook_secret is not None
SECRET = DEVELOPMENT.webhook_secret.get_secret_value()
OTHER_SECRET = "whsec_" + "b3RoZXI" * 8
BUYERS = Audience("buyers", "Loyal buyers")
DOCS = Path(__file__).parents[2] / "docs/destinations/webhook.md"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox") as running:
        yield running


@pytest.fixture
def sink(sandbox: RunningSandbox, tmp_path: Path) -> Iterator[WebhookSink]:
    """Look into what the sandbox's endpoint keeps."""
    state = State(tmp_path / "sandbox/sandbox.db")
    yield WebhookSink(sandbox.settings, state)
    state.close()


def settings(url: str, **more: Any) -> WebhookSettings:
    given = {"name": "crm", "url": url, "secret": {"env": "HOOK"}, "allow_addresses": ["127.0.0.1"], "concurrency": 1}
    return WebhookSettings.model_validate(given | more)


def opened(store: Store, url: str, secret: str = SECRET, **more: Any) -> Webhook:
    variables = {"HOOK": secret, "OLD_HOOK": OTHER_SECRET}
    return settings(url, **more).connect(Surroundings("test", store, "http://heap", "1", variables))


def change(identity: str, member: bool = True) -> Record:
    return Record(f"{identity}{member}".encode().ljust(16), MemberChange(identity, member))


def run(store: Store, sender: Sender, *records: Record, patience: Patience = QUICK) -> Tally:
    return deliver(records, sender, Ledger(store, "crm"), pace=Pace(store, "crm", ()), patience=patience)


def send(store: Store, url: str, *records: Record, **more: Any) -> Tally:
    """Send as a run does that comes to its end."""
    with closing(opened(store, url, **more)) as webhook:
        return run(store, webhook.members(BUYERS), *records)


def fences(kind: str) -> list[str]:
    return [token.content for token in MarkdownIt().parse(DOCS.read_text()) if token.info == kind]


def bodies(served: Endpoint) -> list[dict[str, Any]]:
    return [json.loads(call.body) for call in served.calls]


@pytest.mark.parametrize("records_per_call", [1, 2, 1000])
def test_members_enter_and_leave(
    sandbox: RunningSandbox, sink: WebhookSink, store: Store, records_per_call: int
) -> None:
    url, size = f"{sandbox.url}/webhook/crm", {"records_per_call": records_per_call}
    assert send(store, url, *map(change, ("ann", "bob", "zoë", "o'neil/100%")), **size).accepted == 4
    assert send(store, url, change("bob", member=False), change("nobody", member=False), **size).accepted == 2
    assert sink.members(sandbox.app_id, "buyers") == ["ann", "o'neil/100%", "zoë"]


def test_a_call_says_what_the_documentation_says_and_verifies(store: Store) -> None:
    cleared = ProfileChange("acme", (AttributeChange("plan", "clear"),))
    with endpoint() as served:
        send(store, served.url(), change("ann"), change("bob", member=False))
        with closing(opened(store, served.url())) as webhook:
            run(store, webhook.profiles(ACCOUNTS), Record(b"a key of 16 byte", cleared))
    calls = [Verifier(SECRET).verify(call.body, dict(call.headers)) for call in served.calls]
    for call, shown in zip(calls, map(json.loads, fences("json")), strict=True):
        assert (call.keys(), call["records"][0].keys()) == (shown.keys(), shown["records"][0].keys())
    assert len({record.pop("id") for call in calls for record in call["records"]}) == 3
    assert all(call.pop("timestamp").endswith("Z") for call in calls)
    assert calls == [
        {
            "type": "segment.members.changed",
            "environment": "test",
            "audience": {"slug": "buyers", "name": "Loyal buyers"},
            "identified_by": "identity",
            "create": False,
            "records": [{"identity": "ann", "member": True}, {"identity": "bob", "member": False}],
        },
        {
            "type": "profiles.changed",
            "environment": "test",
            "of": "accounts",
            "identified_by": "identity",
            "create": True,
            "records": [
                {
                    "identity": "acme",
                    "leaving": False,
                    "changes": [{"name": "plan", "operation": "clear", "value": None}],
                }
            ],
        },
    ]


def test_while_a_secret_is_exchanged_both_verify(store: Store) -> None:
    with endpoint() as served:
        send(store, served.url(), change("ann"), previous_secret=Secret(env="OLD_HOOK"))
    for secret in (SECRET, OTHER_SECRET):
        Verifier(secret).verify(served.calls[0].body, dict(served.calls[0].headers))


def test_profiles_change_attribute_by_attribute(sandbox: RunningSandbox, sink: WebhookSink, store: Store) -> None:
    def changes(*operations: tuple[str, Any, Any]) -> Record:
        made = tuple(AttributeChange(*operation) for operation in operations)
        return Record(repr(operations).encode()[:16].ljust(16), ProfileChange("ann", made))

    with closing(opened(store, f"{sandbox.url}/webhook/crm")) as webhook:
        profiles = webhook.profiles(ProfileSet("users"))
        first = [("plan", "set", "pro"), ("since", "set_once", 1), ("seats", "add", 5), ("tags", "append", ["a", "b"])]
        second = [("since", "set_once", 2), ("seats", "add", -2), ("tags", "remove", ["a"]), ("plan", "clear", None)]
        assert run(store, profiles, changes(*first)).accepted == 1
        assert run(store, profiles, changes(*second)).accepted == 1
    assert sink.attributes(sandbox.app_id, "users", "ann") == {"since": 1, "seats": 3, "tags": ["b"]}


def test_a_bad_network_only_delays_and_nothing_counts_twice(
    sandbox: RunningSandbox, sink: WebhookSink, store: Store
) -> None:
    for kind in ("429", "503", "500", "drop", "cut", "lost_ack", "truncate"):
        sandbox.fault(kind=kind, path="/webhook", next=1, retry_after=0 if kind in {"429", "503"} else None)
    grow = ProfileChange("ann", (AttributeChange("seats", "add", 1),))
    records = [Record(bytes([number] * 16), grow) for number in range(7)]
    with closing(opened(store, f"{sandbox.url}/webhook/crm", records_per_call=1)) as webhook:
        profiles = webhook.profiles(ProfileSet("users"))
        assert run(store, profiles, *records, patience=replace(QUICK, attempts=10)).accepted == 7
    assert sink.attributes(sandbox.app_id, "users", "ann") == {"seats": 7}
    assert [fault["hits"] for fault in sandbox.state()["faults"]] == [1] * 7


def test_a_run_that_died_repeats_its_names_and_one_that_ended_does_not(store: Store) -> None:
    records = [change("ann"), change("bob")]
    # a run that is never closed before the others
    with endpoint() as served, closing(opened(store, served.url())) as died:
        run(store, died.members(BUYERS), *records)
        send(store, served.url(), *records)
        send(store, served.url(), *records)
    first, repeated, again = served.calls
    assert first.headers["webhook-id"] == repeated.headers["webhook-id"] != again.headers["webhook-id"]
    names = [{record["id"] for record in body["records"]} for body in bodies(served)]
    assert names[0] == names[1]
    assert not names[0] & names[2]


def test_another_sync_of_profiles_that_ends_meanwhile_changes_no_names(store: Store) -> None:
    seats = Record(b"k" * 16, ProfileChange("ann", (AttributeChange("seats", "add", 2),)))
    with endpoint() as served, closing(opened(store, served.url())) as died:
        run(store, died.profiles(ProfileSet("users", slug="seats")), seats)
        with closing(opened(store, served.url())) as other:
            run(store, other.profiles(ProfileSet("users", slug="plans")), seats)
        with closing(opened(store, served.url())) as again:
            run(store, again.profiles(ProfileSet("users", slug="seats")), seats)
    first, others, repeated = (body["records"][0]["id"] for body in bodies(served))
    assert first == repeated != others


# Tells two changes and is killed before it hears what became of the second.
KILLED = """
import sys
from heap_integration.store import Store
from heap_integration_tests.destinations.test_webhook import BUYERS, change, opened
sender = opened(Store(sys.argv[1]), sys.argv[2]).members(BUYERS)
for identity in ("ann", "bob"):
    sender.send([change(identity)])
"""


def test_a_process_that_is_killed_amid_a_call_is_followed_by_one_with_the_same_names(store: Store) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def kills(call: Call) -> Reply:
        if b"bob" in call.body and started[0].poll() is None:
            started[0].kill()
            started[0].wait()
        return Reply()

    with endpoint(kills) as served:
        url = store.url.render_as_string(hide_password=False)
        started.append(subprocess.Popen([sys.executable, "-c", KILLED, url, served.url()]))
        assert started[0].wait(30) == -signal.SIGKILL
        assert send(store, served.url(), *map(change, ("ann", "bob", "cy")), records_per_call=1).accepted == 3
    names = [call.headers["webhook-id"] for call in served.calls]
    assert (names[:2], len(set(names))) == (names[2:4], 3)


def test_a_call_without_an_answer_is_repeated_under_its_name_by_the_next_run(store: Store) -> None:
    with endpoint(lambda _: Reply(500)) as served:
        with pytest.raises(DeliveryStopped, match="the webhook crm answered 500: without a reason"):
            send(store, served.url(), change("ann"))
        served.answer = lambda _: Reply()
        assert send(store, served.url(), change("ann")).accepted == 1
    assert len({call.headers["webhook-id"] for call in served.calls}) == 1


def test_names_are_repeated_for_a_while_after_the_last_call_of_a_run_and_by_one_run_alone(store: Store) -> None:
    now = 1_000.0

    def names() -> Names:
        return Names(store, "crm", lambda: now)

    long_run = names()
    first = long_run.of([b"key"])
    now += SAME_NAMES_SECONDS
    assert long_run.of([b"key"]) == first
    for _ in range(2):
        now += SAME_NAMES_SECONDS / 2 - 1
        assert names().of([b"key"]) == first
    now += 2
    assert names().of([b"key"]) != first


def test_a_webhook_that_is_gone_is_not_called_again_until_somebody_says_so(
    sandbox: RunningSandbox, sink: WebhookSink, store: Store
) -> None:
    url = f"{sandbox.url}/webhook/crm"
    fault = sandbox.fault(kind="410", path="/webhook")
    for _ in range(2):
        with pytest.raises(DeliveryStopped, match=r"answered 410 .* heap-integration enable-webhook crm -e test"):
            send(store, url, change("ann"), change("bob"), records_per_call=1)
    assert sandbox.state()["faults"][0]["hits"] == 1
    assert Ledger(store, "crm").unsettled() == []
    sandbox.client.delete(f"/_faults/{fault['id']}").raise_for_status()
    with closing(opened(store, url)) as webhook, pytest.raises(NotAuthorised, match="410"):
        webhook.check()

    assert send(store, f"{sandbox.url}/webhook/moved", change("ann")).accepted == 1
    assert enable_again(store, "crm")
    assert not enable_again(store, "crm")
    assert send(store, url, change("bob")).accepted == 1
    assert sink.members(sandbox.app_id, "buyers") == ["ann", "bob"]


def test_a_redirect_is_not_followed(store: Store) -> None:
    with endpoint() as inside:
        moved = Reply(302, headers={"location": inside.url()})
        with endpoint(lambda _: moved) as served, pytest.raises(DeliveryStopped) as stopped:
            send(store, served.url(), change("ann"))
        assert str(stopped.value) == (
            f"the webhook crm answered 302 and points to {inside.url()}: redirects are not followed"
        )
        assert (len(served.calls), inside.calls) == (1, [])


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "Check that both sides have the same secret"), (403, "same secret"), (404, "Check the webhook's url")],
)
def test_a_wrong_secret_or_address_stops_and_rejects_nobody(store: Store, status: int, words: str) -> None:
    with endpoint(lambda _: Reply(status, b"go\x1b[31m away")) as served, pytest.raises(DeliveryStopped) as stopped:
        send(store, served.url(), change("ann"))
    assert f"answered {status}: go [31m away. " in str(stopped.value)
    assert words in str(stopped.value)
    assert stopped.value.tally.rejected == 0


def test_a_wrong_secret_is_noticed_at_the_other_side(sandbox: RunningSandbox, store: Store) -> None:
    with pytest.raises(DeliveryStopped, match="no signature matches"):
        send(store, f"{sandbox.url}/webhook/crm", change("ann"), secret=OTHER_SECRET)


def test_who_makes_a_call_wrong_is_found(store: Store) -> None:
    def picky(call: Call) -> Reply:
        return Reply(422, b"no ghosts") if b"ghost" in call.body else Reply(204)

    with endpoint(picky) as served:
        tally = send(store, served.url(), change("ann"), change("bob"), change("ghost"), change("zoe"))
    assert (tally.accepted, tally.reasons) == (3, {"the webhook crm answered 422: no ghosts": 1})


def test_a_success_may_name_whom_it_refused(sandbox: RunningSandbox, sink: WebhookSink, store: Store) -> None:
    tally = send(
        store,
        f"{sandbox.url}/webhook/crm?unknown=x-",
        change("ann"),
        change("x-1"),
        change("x-2", member=False),
        change("bob"),
    )
    assert (tally.accepted, tally.rejected) == (3, 1)
    assert tally.reasons == {f"{UNKNOWN_THERE}: nobody has this identity": 1}
    assert sink.members(sandbox.app_id, "buyers") == ["ann", "bob"]
    told = [{"index": 1, "reason": "over quota"}, {"index": 0}, {"index": 3, "ambiguous": True}]
    named = Reply(body=json.dumps({"rejected": told, "ok": True}).encode())
    with endpoint(lambda _: named) as served:
        tally = send(store, served.url(), *map(change, ("ann", "bob", "cy", "dee")))
    assert tally.accepted == 1
    assert tally.reasons == {"over quota": 1, "the webhook refused it without a reason": 1, AMBIGUOUS_THERE: 1}


@pytest.mark.parametrize("body", [b"OK", b"", b"[1]", b"{}", b'{"rejected": []}', b'{"rejected": null}', b"\xff"])
def test_any_other_success_takes_all(store: Store, body: bytes) -> None:
    with endpoint(lambda _: Reply(201, body)) as served:
        assert send(store, served.url(), change("ann")).accepted == 1


@pytest.mark.parametrize("rejected", ['"ann"', '["ann"]', '[{"index": 1}]', '[{"index": true}]', '[{"index": -1}]'])
def test_an_answer_that_names_nobody_in_the_call_is_not_taken_for_a_success(store: Store, rejected: str) -> None:
    reply = Reply(body=f'{{"rejected": {rejected}}}'.encode())
    with endpoint(lambda _: reply) as served, pytest.raises(DeliveryStopped, match="with places from 0 to 0"):
        send(store, served.url(), change("ann"))


def test_an_internal_address_is_refused_at_once_and_nobody_is_rejected(store: Store) -> None:
    with endpoint() as served:
        for url in (served.url("localhost", "https"), served.url("127.0.0.1", "https")):
            with pytest.raises(DeliveryStopped, match="is an internal address") as stopped:
                send(store, url, change("ann"), allow_addresses=())
            assert stopped.value.tally.rejected == 0
    assert served.calls == []


def test_a_check_connects_and_sends_nothing(store: Store) -> None:
    with endpoint() as served, closing(opened(store, served.url())) as webhook:
        assert webhook.check().startswith("crm: 127.0.0.1 at 127.0.0.1, not encrypted; the first call will show")
    assert served.calls == []
    with closing(opened(store, served.url())) as webhook, pytest.raises(RetryLater, match="refused"):
        webhook.check()
    inside = opened(store, "https://localhost:1", allow_addresses=())
    with closing(inside) as webhook, pytest.raises(NotAuthorised, match="internal"):
        webhook.check()


@pytest.mark.parametrize(
    "secret", ["", "hush", "whsec_", "whsec_aHVzaA==", SECRET.removeprefix("whsec_"), f"{SECRET}!", "whsec_" + "a" * 96]
)
def test_a_secret_that_cannot_be_one_is_refused_without_being_repeated(store: Store, secret: str) -> None:
    with pytest.raises((ValueError, LookupError), match="HOOK") as refused:
        opened(store, "https://example.com", secret=secret)
    hidden = secret.removeprefix("whsec_")
    assert not hidden or hidden not in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"url": "http://10.0.0.1/hook", "allow_addresses": ()}, "url must be https, unless allow_addresses"),
        ({"url": "https://ann:pw@example.com"}, "without a user, a password"),
        ({"url": "https://example.com/#there"}, "must be like https://host/path"),
        ({"url": "ftp://example.com"}, "must be like https://host/path"),
        ({"url": "https://example..com/"}, "must be like https://host/path"),
        ({"url": "https://example.com:65536/"}, "must be like https://host/path"),
        ({"url": "https://example.com", "allow_addresses": ["10.0.0.0/99"]}, "is neither a network like"),
        ({"url": "https://example.com", "records_per_call": 1001}, "less than or equal to 1000"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**wrong)


def test_an_address_is_called_as_it_is_written(store: Store) -> None:
    with endpoint() as served:
        send(store, f"{served.url()}/?tenant=a%20b&x=1", change("ann"))
    assert served.calls[0].path == "/hook/?tenant=a%20b&x=1"


def test_the_settings_of_the_documentation_are_valid() -> None:
    for text in fences("yaml"):
        heap = {"app_id": "1", "segment_sync": {"webhook_secret": {"env": "HEAP"}}}
        environment = Environment.model_validate({"name": "production", "heap": heap} | YAML(typ="safe").load(text))
        (webhook,) = environment.destinations.webhooks
        assert webhook.url.startswith(("https://", "http://hooks.internal"))


def test_the_receiver_of_the_documentation_takes_what_is_sent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": "receiver"}
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    exec("".join(fences("python")), namespace)  # the page's own code
    with endpoint(handler=namespace["Receiver"]) as served:
        assert send(store, served.url(), change("ann"), change("bob")).accepted == 2
        tally = send(store, served.url(), change("ann", member=False), change(""))
        assert (tally.accepted, tally.rejected) == (1, 1)
        with pytest.raises(DeliveryStopped, match="401"):
            send(store, served.url(), change("cy"), secret=OTHER_SECRET)
    assert namespace["audiences"] == {"buyers": {"bob"}}
