"""A sandbox on a free port of this machine, for as long as a test needs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from heap_integration.sandbox.app import create_app
from heap_integration.sandbox.settings import SandboxEnvironment, SandboxSettings


class RunningSandbox:
    """A sandbox that serves in a thread of this process."""

    def __init__(self, state_path: Path, settings: SandboxSettings) -> None:
        self.settings = settings
        config = uvicorn.Config(
            create_app(settings, state_path),
            host="127.0.0.1",
            port=0,
            log_level="warning",
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        if not self._server.ready.wait(20):
            raise RuntimeError("the sandbox did not start")
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.userflow_url = f"{self.url}/userflow"
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    @property
    def environment(self) -> SandboxEnvironment:
        """The first environment."""
        return self.settings.environments[0]

    @property
    def app_id(self) -> str:
        """The first environment's app id."""
        return self.environment.app_id

    def state(self, path: str = "", **query: Any) -> Any:
        """Return the JSON of /_state/<path>, e.g. ``state("events/count", app_id="1")``."""
        answer = self.client.get(f"/_state/{path}".rstrip("/"), params=query)
        return answer.raise_for_status().json()

    def counts(self, app_id: str | None = None) -> dict[str, int]:
        """Return the counters of an app id, the first environment's unless told otherwise."""
        counts: dict[str, int] = self.state()["apps"][self.app_id if app_id is None else app_id]
        return counts

    def events(self, app_id: str | None = None, **query: Any) -> list[dict[str, Any]]:
        """Return every event of an app id in the order of arrival."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.state("events", app_id=app_id or self.app_id, after=after, limit=10_000, **query)
            found += page["events"]
            after = page["next"]
        return found

    def fault(self, **rule: Any) -> dict[str, Any]:
        """Put a fault in force, e.g. ``fault(kind="429", path="/api/track", next=2)``."""
        answer: dict[str, Any] = self.client.post("/_faults", json=rule).raise_for_status().json()
        return answer

    def userflow(self, method: str, path: str, key: str | None = None, **request: Any) -> httpx.Response:
        """Call Userflow's API with the first environment's key, unless another is given."""
        token = self.environment.userflow_api_key.get_secret_value() if key is None else key
        headers = {"Authorization": f"Bearer {token}"}
        return self.client.request(method, f"/userflow{path}", headers=headers, **request)

    def stop(self) -> None:
        """Stop serving; the state stays and a new sandbox may go on with it."""
        self.client.close()
        self._server.should_exit = True
        self._thread.join(20)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, *args: Any, **kwargs: Any) -> None:
        await super().startup(*args, **kwargs)
        self.ready.set()


@contextmanager
def running_sandbox(folder: Path, **settings: Any) -> Iterator[RunningSandbox]:
    """Serve a sandbox whose state is ``folder/sandbox.db``; settings are those of ``SandboxSettings``."""
    sandbox = RunningSandbox(folder / "sandbox.db", SandboxSettings(**settings))
    try:
        yield sandbox
    finally:
        sandbox.stop()
