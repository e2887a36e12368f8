"""The receiver's description of itself is valid, and true."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from prometheus_client.parser import text_string_to_metric_families
from requests import PreparedRequest, Session
from requests.auth import AuthBase
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from heap_integration_tests.receiver.serving import WEB_KEY, receiver
from heap_integration_tests.receiver.signing import (
    HEAP_PASSWORD,
    HEAP_USER,
    basic,
    heap_headers,
    userflow_headers,
    userpilot_headers,
)

DOCUMENTATION = Path(__file__).parents[2] / "docs/receiver.md"
EXAMPLES = 6
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
]


class Proof(AuthBase):
    """Proves a request to be whose it says it is, after its body is made: signatures are over the bytes."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
        for signed in (userflow_headers(body), userpilot_headers(body), heap_headers(body)):
            request.headers.update({name: value for name, value in signed.items() if name != "Content-Type"})
        who = (HEAP_USER, HEAP_PASSWORD) if request.path_url == "/heap/events" else (WEB_KEY,)
        request.headers["Authorization"] = basic(*who)["Authorization"]
        return request


@pytest.fixture
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield the description that a receiver serves, while it does."""
    with receiver(tmp_path_factory.mktemp("described")) as client:
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


def answers(description: Any, mode: schemathesis.GenerationMode, auth: AuthBase | None) -> Counter[int]:
    """Send made-up calls to each operation, hold the answers against the description, and count their statuses."""
    statuses: Counter[int] = Counter()
    with Session() as session:
        # The short names lead where the long ones lead.
        for found in description.exclude(path_regex=r"^/v1/.$").get_all_operations():

            @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=found.ok().as_strategy(generation_mode=mode))
            def send(case: schemathesis.Case[Any]) -> None:
                answer = case.call(session=session, auth=auth)
                case.validate_response(answer, checks=CHECKS)
                statuses[answer.status_code] += 1

            with suppress(Unsatisfiable):
                # There is no wrong way to ask for what has no parameters.
                send()
    return statuses


def test_all_that_is_described_is_true(description: Any) -> None:
    statuses = answers(description, schemathesis.GenerationMode.POSITIVE, Proof())
    assert statuses[200] > statuses.total() / 2 > 30


def test_it_is_true_for_what_is_described_to_be_wrong(description: Any) -> None:
    statuses = answers(description, schemathesis.GenerationMode.NEGATIVE, Proof())
    assert statuses[400] > 20


def test_it_is_true_for_strangers(description: Any) -> None:
    statuses = answers(description, schemathesis.GenerationMode.POSITIVE, None)
    assert statuses[401] > 40


def test_the_description_is_valid(description: Any) -> None:
    description.validate()
    assert len(description.raw_schema["paths"]) == 24


def test_the_documentation_names_all_that_is_there(tmp_path: Path) -> None:
    page = DOCUMENTATION.read_text()
    with receiver(tmp_path) as client:
        client.post("/v1/track", json={}, headers=basic(WEB_KEY))
        paths = client.get("/openapi.json").json()["paths"]
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    assert [path for path in paths if path not in page] == []
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert {name for name in names if not name.endswith("_created")} == set(re.findall(r"`(heap_receiver_\w+)`", page))
