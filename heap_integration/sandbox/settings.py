"""What the sandbox is told: its environments, their keys, and the behaviour nobody could establish."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, model_validator

ENVIRONMENTS_VARIABLE = "HEAP_SANDBOX_ENVIRONMENTS"
# A request is for the environment whose key it has.
_CHOOSES = (
    "userflow_api_key",
    "userpilot_api_key",
    "customerio_site_id",
    "customerio_api_key",
    "customerio_app_api_key",
    "webhook_secret",
)


class SandboxEnvironment(BaseModel):
    """One Heap environment and the vendors' environments it is paired with.

    A vendor without a key knows nobody of this environment. Each is the Main Production environment of an account of
    its own. The keys stay in memory: neither the state nor any page or answer for inspection holds them. Where
    ``heap_redirect_uri`` is given, a browser is sent back there only, else to any address.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_id: str = Field(pattern=r"^\d{1,16}$")
    heap_api_key: SecretStr
    heap_webhook_secret: SecretStr
    heap_client_id: str
    heap_client_secret: SecretStr
    heap_redirect_uri: str | None = None
    userflow_api_key: SecretStr
    userflow_signing_secret: SecretStr
    userpilot_api_key: SecretStr | None = None
    customerio_site_id: SecretStr | None = None
    customerio_api_key: SecretStr | None = None
    customerio_app_api_key: SecretStr | None = None
    webhook_secret: SecretStr | None = None


DEVELOPMENT = SandboxEnvironment(
    app_id="1000000001",
    heap_api_key=SecretStr("sandbox-heap-api-key"),
    heap_webhook_secret=SecretStr("sandbox-heap-webhook-secret"),
    heap_client_id="sandbox-heap-client",
    heap_client_secret=SecretStr("sandbox-heap-client-secret"),
    userflow_api_key=SecretStr("ak_sandbox_userflow"),
    userflow_signing_secret=SecretStr("sandbox-userflow-signing-secret"),
    userpilot_api_key=SecretStr("sandbox-userpilot-api-key"),
    customerio_site_id=SecretStr("sandbox-site-id"),
    customerio_api_key=SecretStr("sandbox-customerio-api-key"),
    customerio_app_api_key=SecretStr("sandbox-customerio-app-api-key"),
    webhook_secret=SecretStr("whsec_c2FuZGJveC13ZWJob29rLXNpZ25pbmctc2VjcmV0"),
)
"""The environment of a sandbox that was told of none."""


class SandboxSettings(BaseModel):
    """How a sandbox behaves.

    ``booleans`` and ``long_values`` choose what Heap's documentation leaves open: a JSON boolean as a
    property's value, and a value longer than 1024 characters; ``userflow_append`` whether Userflow's
    ``append`` repeats an entry that a list already has. ``userflow_requests_per_minute`` turns on Userflow's
    request limiter, and ``userflow_requests_at_once`` its limiter of concurrency, whose numbers are not published:
    who waits there for more than ``userflow_queue_seconds`` is answered 503. ``userflow_request_seconds`` is how long
    a request takes. A bulk job of Userpilot's waits ``userpilot_job_seconds``
    before its first row and as long after its last one, with ``userpilot_rows_per_minute`` in between;
    ``userpilot_wrong_rows`` says whether one wrong row lets it fail or is left out; ``userpilot_longest_value`` is
    the longest text of a property. ``deletion_seconds`` is how long a
    user deletion stays pending, ``code_seconds`` how long a code of OAuth is good; ``retry_seconds`` the first
    pause before a webhook is sent again, which doubles up to ``webhook_attempts`` in all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    environments: tuple[SandboxEnvironment, ...] = (DEVELOPMENT,)
    limits: bool = True
    events_per_minute: int = Field(default=15_000, gt=0)
    events_per_minute_per_identity: int = Field(default=1_000, gt=0)
    single_calls_per_30_seconds: int = Field(default=30, gt=0)
    booleans: Literal["reject", "accept"] = "reject"
    long_values: Literal["reject", "cut"] = "reject"
    deletion_seconds: float = Field(default=2.0, ge=0)
    code_seconds: float = Field(default=60.0, gt=0)
    userflow_append: Literal["unique", "repeat"] = "unique"
    userflow_requests_per_minute: int | None = Field(default=None, gt=0)
    userflow_requests_at_once: int | None = Field(default=None, gt=0)
    userflow_queue_seconds: float = Field(default=15.0, ge=0)
    userflow_request_seconds: float = Field(default=0.0, ge=0)
    userpilot_calls_per_minute: int = Field(default=600, gt=0)
    userpilot_rows_per_minute: int = Field(default=1_800, gt=0)
    userpilot_job_seconds: float = Field(default=1.0, ge=0)
    userpilot_wrong_rows: Literal["fail", "skip"] = "fail"
    userpilot_longest_value: int = Field(default=65_535, gt=0)
    webhook_attempts: int = Field(default=8, gt=0)
    retry_seconds: float = Field(default=0.5, gt=0)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if not self.environments:
            raise ValueError("a sandbox needs at least one environment")
        app_ids = [environment.app_id for environment in self.environments]
        if len(set(app_ids)) < len(app_ids):
            raise ValueError("two environments have the same app_id")
        for name in _CHOOSES:
            keys = [key.get_secret_value() for each in self.environments if (key := getattr(each, name)) is not None]
            if len(set(keys)) < len(keys):
                raise ValueError(f"two environments have the same {name}")
        return self

    def environment(self, app_id: str) -> SandboxEnvironment | None:
        """Return the environment with that app id, if there is one."""
        return next((each for each in self.environments if each.app_id == app_id), None)

    def known(self, app_id: str) -> SandboxEnvironment:
        """Return the environment with an app id that was checked before.

        Raises:
            LookupError: there is none.
        """
        found = self.environment(app_id)
        if found is None:
            raise LookupError(f"no environment {app_id}")
        return found


def settings_from(environ: Mapping[str, str] = os.environ) -> SandboxSettings:
    """Read the environments from HEAP_SANDBOX_ENVIRONMENTS, a JSON list of objects.

    Each object has the fields of ``SandboxEnvironment``. Without the variable there is the one
    development environment, app id 1000000001.

    Raises:
        ValueError: the variable does not hold such a list; the message never repeats its content.
    """
    text = environ.get(ENVIRONMENTS_VARIABLE, "").strip()
    if not text:
        return SandboxSettings()
    try:
        environments = TypeAdapter(tuple[SandboxEnvironment, ...]).validate_json(text)
        return SandboxSettings(environments=environments)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the list'}: {problem['msg']}" for problem in error.errors()
        )
        raise ValueError(f"{ENVIRONMENTS_VARIABLE}: {problems}") from None
