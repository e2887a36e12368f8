"""A project of one environment in a folder of its own, run by Dagster against a sandbox."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from heap_integration.build import build_environment
from heap_integration.environment import Environment, load_environment
from heap_integration.hub import Hub, open_hub
from heap_integration.receiver import ReceiverSettings, create_app
from heap_integration.receiver.server import build_server
from heap_integration_tests.support.sandbox import RunningSandbox

NAME = "lab"
START = date(2026, 1, 1)


@dataclass
class Project:
    """An environment's folder, a Dagster instance, and what a person does with them."""

    root: Path
    sandbox: RunningSandbox
    instance: dg.DagsterInstance
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = {
            "heap": {
                "app_id": self.sandbox.app_id,
                "base_url": self.sandbox.url,
                "segment_sync": {"webhook_secret": {"env": "HEAP_SEGMENT_SYNC_SECRET"}},
            },
            "start_date": START.isoformat(),
            "automation": True,
            "days_per_run": "all",
            "sources": {
                "userflow": {"signing_secret": {"env": "USERFLOW_WEBHOOK_SECRET"}},
                "files": [{"name": "backend", "path": "incoming/*.ndjson"}],
            },
            "destinations": {
                "userflow": {"api_key": {"env": "USERFLOW_API_KEY"}, "base_url": self.sandbox.userflow_url}
            },
        } | self.settings
        self.write()

    @property
    def file(self) -> Path:
        """The environment's YAML."""
        return self.root / "environments" / NAME / "environment.yaml"

    def write(self) -> None:
        """Write the settings down as they are now."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.settings))
        fresh.replace(self.file)
        self.__dict__.pop("definitions", None)

    @property
    def environment(self) -> Environment:
        """The environment as its file says now."""
        return load_environment(self.file.parent)

    @cached_property
    def definitions(self) -> dg.Definitions:
        """What a code location that loads now has."""
        return build_environment(self.environment)

    def hub(self) -> Hub:
        """Return the environment at work."""
        return open_hub(self.environment, {})

    def lay(self, name: str, *events: Mapping[str, Any]) -> None:
        """Put a file of events where the source ``backend`` finds it."""
        path = self.root / "incoming" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{json.dumps(event)}\n" for event in events))

    def land(self, *bodies: Mapping[str, Any]) -> None:
        """Leave a sealed landing segment as the receiver does, with these bodies from Userflow."""
        folder = Path(self.environment.landing)
        folder.mkdir(parents=True, exist_ok=True)
        received = datetime.now(UTC).isoformat(timespec="milliseconds")
        lines = (
            json.dumps(
                {"id": body["id"], "received_at": received, "source": "userflow", "adapter": "userflow", "body": body}
            )
            for body in bodies
        )
        (folder / f"{time.time_ns():019d}-1-00000000.ndjson").write_text("".join(f"{line}\n" for line in lines))

    @contextmanager
    def receiving(self) -> Iterator[str]:
        """Serve the environment's receiver and yield where Heap's pages go."""
        environment = self.sandbox.environment
        with self.hub() as hub, socket.create_server(("127.0.0.1", 0)) as listener:
            settings = ReceiverSettings(
                userflow_secret=environment.userflow_signing_secret.get_secret_value(),
                segment_sync_secret=environment.heap_webhook_secret.get_secret_value(),
            )
            app = create_app(settings=settings, store=hub.store, landing=hub.landing())
            server = build_server(app)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/heap/segments"
            finally:
                server.should_exit = True
                thread.join()

    def send(
        self,
        first: date,
        last: date | None = None,
        *,
        resend: bool = False,
        definitions: dg.Definitions | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run ``send_events`` for a range of days, with what a location has loaded before if that is given."""
        batches = f"{NAME}__events__outbound_event_batches"
        return self.run(
            "send_events",
            tags={
                "dagster/asset_partition_range_start": first.isoformat(),
                "dagster/asset_partition_range_end": (last or first).isoformat(),
            },
            run_config={"ops": {batches: {"config": {"resend": resend}}}},
            definitions=definitions,
        )

    def sync(self, **config: Any) -> dg.ExecuteInProcessResult:
        """Run ``sync_segments``, with the config of its steps by their names."""
        return self.run("sync_segments", run_config={"ops": {name: {"config": each} for name, each in config.items()}})

    def run(self, job: str, *, definitions: dg.Definitions | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        """Run a job to its end, good or bad."""
        return (
            (definitions or self.definitions)
            .resolve_job_def(job)
            .execute_in_process(instance=self.instance, raise_on_error=False, **options)
        )


def key(family: str, name: str) -> dg.AssetKey:
    """Return the key of an asset of the project's environment."""
    return dg.AssetKey([NAME, family, name])


def numbers(result: dg.ExecuteInProcessResult, asset: dg.AssetKey) -> dict[str | None, dict[str, Any]]:
    """Return what a run told of an asset's partitions, each as plain values by name."""
    found = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    return {
        each.partition: {name.removeprefix("dagster/"): value.value for name, value in each.metadata.items()}
        for each in found
        if each.asset_key == asset
    }


def track(user: str, day: date, number: int = 0, **more: Any) -> dict[str, Any]:
    """Return an event as a Segment client writes it."""
    moment = datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(seconds=number)
    return {
        "type": "track",
        "event": "Order Completed",
        "userId": user,
        "messageId": f"message-{user}-{moment:%Y%m%d%H%M%S}",
        "timestamp": moment.isoformat(),
        "properties": {"total": number},
        **more,
    }


def flow_started(identifier: str, user: str, day: date) -> dict[str, Any]:
    """Return Userflow's notification that somebody has started a flow."""
    return {
        "id": identifier,
        "object": "webhook_notification",
        "topic": "event.tracked.flow_started",
        "data": {
            "object": {
                "id": f"event-{identifier}",
                "object": "event",
                "name": "flow_started",
                "user_id": user,
                "time": f"{day}T09:30:00Z",
                "attributes": {"flow_name": "Welcome"},
            }
        },
    }
