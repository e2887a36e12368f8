"""Customer.io's own description of its Track API, and its own client, against our calls and its stand-in."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from jsonschema import Draft202012Validator, ValidationError
from requests import Session
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from heap_integration.delivery.engine import deliver
from heap_integration.delivery.ledger import Ledger
from heap_integration.delivery.pace import Pace
from heap_integration.delivery.records import AttributeChange, MemberChange, ProfileChange, Record, Sender, Tally
from heap_integration.destinations.customerio import CustomerioDestination, CustomerioSettings
from heap_integration.destinations.destination import Audience, ProfileSet, Surroundings
from heap_integration.store import Store
from heap_integration_tests.support.passage import Exchange, passage
from heap_integration_tests.support.sandbox import RunningSandbox, running_sandbox

ACCOUNTS = ProfileSet("accounts", create=True)
USERS = ProfileSet("users", create=True)

HERE = Path(__file__).parent
CONTRACT = HERE.parents[2] / "shared/contracts/customerio/track-api-openapi.json"
TRACK, APP = "/customerio/track", "/customerio/app"
VARIABLES = {
    "SITE_ID": "sandbox-site-id",
    "API_KEY": "sandbox-customerio-api-key",
    "APP_API_KEY": "sandbox-customerio-app-api-key",
}
BASIC = base64.b64encode(b"sandbox-site-id:sandbox-customerio-api-key").decode()
# What the description calls each operation of a batch.
OPERATIONS = {
    ("person", "identify"): "identify_person",
    ("person", "delete"): "person_delete",
    ("object", "identify"): "object_identify",
}
FUZZED = r"^/api/(v1/accounts/region|v1/segments/.*|v2/.*)$"
EXAMPLES = 15


class Contract:
    """The description, asked about one exchange at a time."""

    def __init__(self, specification: dict[str, Any]) -> None:
        self.specification = specification
        self.paths = {
            re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) + "$"): path for path in specification["paths"]
        }

    def check_request(self, exchange: Exchange) -> None:
        """Hold a request against the description."""
        template, operation = self._operation(exchange)
        assert exchange.headers["authorization"].startswith("Basic ")
        self._check_query(template, exchange.address.query)
        if "requestBody" in operation:
            assert exchange.headers["content-type"] == "application/json"
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            self._validate(schema, json.loads(exchange.body), closed=True)
        if template == "/api/v2/batch":
            assert len(exchange.body) <= 500_000
            for item in json.loads(exchange.body)["batch"]:
                schema = {"$ref": f"#/components/schemas/{OPERATIONS[item['type'], item['action']]}"}
                self._validate(schema, item, closed=True)

    def check_answer(self, exchange: Exchange) -> None:
        """Hold an answer against the description."""
        _, operation = self._operation(exchange)
        described = self._resolved(operation["responses"][str(exchange.status)])
        if "content" in described:
            self._validate(described["content"]["application/json"]["schema"], json.loads(exchange.answer), closed=True)
        elif exchange.status == 200:
            assert described["description"] == "A successful request returns an empty object response."
            assert json.loads(exchange.answer) == {}

    def schema(self, name: str, value: Any) -> None:
        """Hold a value against one of the description's schemas."""
        self._validate({"$ref": f"#/components/schemas/{name}"}, value, closed=True)

    def _check_query(self, template: str, query: str) -> None:
        given = self.specification["paths"][template].get("parameters", [])
        parameters = [self._resolved(parameter) for parameter in given]
        known = {parameter["name"]: parameter["schema"] for parameter in parameters if parameter["in"] == "query"}
        for name, value in parse_qsl(query):
            self._validate(known[name], value)

    def _operation(self, exchange: Exchange) -> tuple[str, dict[str, Any]]:
        path = exchange.address.path.removeprefix(TRACK)
        [template] = [template for pattern, template in self.paths.items() if pattern.match(path)]
        return template, self.specification["paths"][template][exchange.method.lower()]

    def _resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in part:
            found = self.specification
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            part = found
        return part

    def _validate(self, schema: dict[str, Any], value: Any, *, closed: bool = False) -> None:
        # What the description doesn't name is a mistake of ours, though it would let it pass.
        strict = {"unevaluatedProperties": False} if closed else {}
        parts = {"components": self.specification["components"]}
        Draft202012Validator({"allOf": [schema], **strict, **parts}).validate(value)


@pytest.fixture(scope="module")
def contract() -> Contract:
    if not CONTRACT.exists():
        pytest.skip("the vendor's contract is not beside this checkout (../shared/contracts/customerio)")
    return Contract(json.loads(CONTRACT.read_text()))


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[RunningSandbox]:
    with running_sandbox(tmp_path / "sandbox", limits=False) as running:
        yield running


def connect(url: str, store: Store) -> CustomerioDestination:
    secrets = {name.lower(): {"env": name} for name in VARIABLES}
    given = CustomerioSettings.model_validate(secrets | {"track_url": url + TRACK, "app_url": url + APP})
    return given.connect(Surroundings("production", store, "https://heap.invalid", "1", VARIABLES))


def send(store: Store, to: Sender, payloads: Sequence[Any]) -> Tally:
    records = [Record(f"{number:016d}".encode(), payload) for number, payload in enumerate(payloads)]
    return deliver(records, to, Ledger(store, "customerio"), pace=Pace(store, "c", to.limits.windows))


def profiles(*identities: str) -> list[ProfileChange]:
    changes = (
        AttributeChange("plan", "set", "pro"),
        AttributeChange("seats", "set", 3),
        AttributeChange("tags", "set", ["a", "b"]),
        AttributeChange("city", "clear"),
    )
    return [ProfileChange(identity, changes) for identity in identities]


def do_everything(customerio: CustomerioDestination, store: Store) -> None:
    """Send all that there is to send, with something to refuse in each."""
    entering = [MemberChange(f"user-{number}", member=True) for number in range(1200)]
    customerio.check()
    send(store, customerio.profiles(USERS), profiles("user-1", "user-2"))
    send(
        store,
        customerio.profiles(ProfileSet("users", create=True, identified_by="email")),
        profiles("ann@example.com", "ann"),
    )
    send(store, customerio.profiles(ProfileSet("users")), profiles("user-1", "nobody"))
    send(store, customerio.profiles(ACCOUNTS), profiles("acme"))
    send(store, customerio.profiles(ProfileSet("accounts")), profiles("acme", "nobody"))
    send(store, customerio.members(Audience("buyers", "Buyers")), entering)
    send(store, customerio.members(Audience("buyers", "Buyers", create=True)), entering)
    by_email = customerio.members(Audience("buyers", "Buyers", identified_by="email"))
    send(store, by_email, [MemberChange("ann@example.com", member=True)])
    send(store, by_email, [MemberChange("ann@example.com", member=False)])
    everybody = list(customerio.existing(Audience("buyers", "Buyers")))
    assert len(everybody) == 1200
    send(store, customerio.members(Audience("buyers", "Buyers")), [MemberChange("user-1", member=False)])
    send(store, customerio.deletions(), ["user-1", "nobody"])


def test_all_that_is_sent_and_answered_is_as_described(
    contract: Contract, sandbox: RunningSandbox, store: Store
) -> None:
    with passage(sandbox.url) as passed:
        customerio = connect(passed.url, store)
        do_everything(customerio, store)
        number = next(each["id"] for each in customerio.client.segments() if each["name"] == "Buyers")
        for count in (0, 1001):
            address = f"{passed.url}{TRACK}/api/v1/segments/{number}/add_customers"
            headers = {"authorization": f"Basic {BASIC}"}
            sandbox.client.post(address, json={"ids": ["ann"] * count}, headers=headers)
        customerio.close()

    seen: Counter[tuple[str, int]] = Counter()
    for exchange in passed.exchanges:
        if exchange.address.path.startswith(TRACK):
            contract.check_answer(exchange)
            if exchange.status == 400:
                with pytest.raises(ValidationError):
                    contract.check_request(exchange)
            else:
                contract.check_request(exchange)
            seen[exchange.address.path.rpartition("/")[2], exchange.status] += 1
    assert {("batch", 200), ("batch", 207), ("add_customers", 200), ("add_customers", 400)} < seen.keys()
    assert {("remove_customers", 200), ("region", 200)} < seen.keys()
    assert ("batch", 400) not in seen


def test_segments_and_identifiers_are_as_described(contract: Contract, sandbox: RunningSandbox, store: Store) -> None:
    with passage(sandbox.url) as passed:
        customerio = connect(passed.url, store)
        do_everything(customerio, store)
        customerio.close()
    answers = {
        (each.method, each.address.path.removeprefix(APP)): json.loads(each.answer)
        for each in passed.exchanges
        if each.address.path.startswith(APP) and each.status == 200
    }
    for segment in (answers["POST", "/v1/segments"]["segment"], *answers["GET", "/v1/segments"]["segments"]):
        contract.schema("segmentResponseObject", segment)
    for who in answers["GET", "/v1/segments/2/membership"]["identifiers"]:
        contract.schema("customer_identifiers", who)
    for found in answers["POST", "/v1/customers/attributes"]["customers"]:
        contract.schema("customer_identifiers", found["identifiers"])


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_the_stand_in_answers_whatever_comes_as_described(
    contract: Contract, sandbox: RunningSandbox, mode: schemathesis.GenerationMode
) -> None:
    fuzzed = {path: told for path, told in contract.specification["paths"].items() if re.match(FUZZED, path)}
    description: Any = schemathesis.openapi.from_dict(contract.specification | {"paths": fuzzed})
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    statuses: Counter[int] = Counter()
    headers = {"authorization": f"Basic {BASIC}"}
    with Session() as session:
        for found in description.get_all_operations():

            @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=found.ok().as_strategy(generation_mode=mode))
            def call(case: schemathesis.Case[Any]) -> None:
                answer = case.call(base_url=sandbox.url + TRACK, session=session, headers=headers)
                case.validate_response(answer, checks=checks)
                statuses[answer.status_code] += 1

            with suppress(Unsatisfiable):
                call()
    assert statuses.total() > EXAMPLES


def test_customerios_own_client_fills_a_segment(sandbox: RunningSandbox, store: Store, node_modules: Path) -> None:
    script = [str(HERE / "customerio.cjs"), sandbox.url, str(node_modules)]
    ran = subprocess.run(["node", *script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads(ran.stdout)
    assert told["region"] == {"url": "https://track.customer.io", "region": "us", "environment_id": 1}
    assert [error["batch_index"] for error in told["batch"]["errors"]] == [1]
    assert told["membership"]["ids"] == ["ann", "bob"]
    assert told["left"] == {"segment_id": told["segment"], "count": 1}
    assert [each["id"] for each in told["attributes"]["customers"]] == ["ann"]
    assert told["refused"] == [400, 404]

    customerio = connect(sandbox.url, store)
    assert list(customerio.existing(Audience("theirs", "Theirs"))) == ["bob"]
    customerio.close()
