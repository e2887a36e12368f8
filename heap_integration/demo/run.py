"""The demo from start to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from heap_integration.demo.clickstream import Click, fetch, read_clicks, write_days
from heap_integration.demo.services import DemoFailed, Services
from heap_integration.demo.world import World
from heap_integration.environment import Environment, SegmentSync, load_environment, read_variables
from heap_integration.events.days import day_ranges
from heap_integration.events.mapping import load_mapping
from heap_integration.hub import Hub, open_hub
from heap_integration.routes import routes
from heap_integration.status import read_status
from heap_integration.warehouse.events import day_counts, pending_days
from heap_integration.warehouse.memberships import baseline_size

NAME = "sandbox"
DAGSTER = "http://127.0.0.1:3000"
DOCS = "http://127.0.0.1:8490"
# An hour of Heap's budget is 900,000 events; who sends more watches the UI instead.
PATIENCE = timedelta(hours=1)
POLL_SECONDS = 2.0


class Demo:
    """The sandbox, the receiver and Dagster on this machine, with real events going through.

    State lies in ``data/``: a second start goes on where the first stopped.
    """

    def __init__(
        self,
        root: Path,
        *,
        days: int | None,
        ends: str,
        data: Path | None,
        mapping: Path | None,
        receiver_port: int,
        out: Console,
    ) -> None:
        self.root = root
        self.days = days
        self.ends = ends
        self.data = data
        self.mapping = load_mapping(mapping) if mapping else None
        self.receiver = f"http://127.0.0.1:{receiver_port}"
        self.out = out
        self.folder = root / "data" / "demo"
        self.services = Services(self.folder / "logs")
        self._days = (date.min, date.max)
        self._status = out.status("starting …")

    def run(self, *, once: bool) -> None:
        """Run both flows; with ``once`` end when they are through, else leave everything running.

        Raises:
            DemoFailed: something didn't start, or the counts don't add up at both ends.
        """
        for ending in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, signal.default_int_handler)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._status, open_hub(self.environment, self.variables) as hub:
                clicks = self._clicks()
                self._start_services(ui=not once)
                before = read_status(hub) | {"held": self._members(hub), "home": self._home(hub)}
                self._say("Userflow's users and Heap's segments are being set up")
                self.world.settle_in(clicks, f"{self.receiver}/userflow")
                self.world.introduce(clicks, self.receiver, self.write_key)
                ranges = self._load_data(hub)
                first = self.world.sync_segments(clicks, self._now, f"{self.receiver}/heap/segments")
                self._deliver(hub, ranges, once=once)
                if first:
                    self.world.sync_segments(clicks, self._now, f"{self.receiver}/heap/segments")
                    self._deliver(hub, [], once=once)
                self._bring_home()
            with open_hub(self.environment, self.variables) as hub:
                self._report(hub, before)
            if not once:
                self._stay()
        finally:
            self.world.close()
            self.services.stop()

    @cached_property
    def environment(self) -> Environment:
        """The sandbox's environment."""
        return load_environment(self.root / "environments" / NAME)

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """The environment's secrets."""
        env_file = self.environment.file.parent / ".env"
        if not env_file.exists():
            shutil.copy(env_file.with_name(".env.example"), env_file)
        return read_variables(self.environment, os.environ)

    @cached_property
    def world(self) -> World:
        """The vendors' products."""
        heap, userflow = self.environment.heap, self.environment.destinations.userflow
        if userflow is None:
            raise DemoFailed(f"{self.environment.file} has no destination userflow")
        return World(heap.url, heap.app_id, userflow.url, userflow.api_key.value(self.variables))

    @property
    def write_key(self) -> str:
        """What the shop's backend proves itself by."""
        (client,) = self.environment.sources.clients
        return client.write_key.value(self.variables)

    @cached_property
    def _now(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None)

    def _clicks(self) -> list[Click]:
        self._say("the clickstream is being fetched")
        clicks = read_clicks(fetch(self.root, self.folder), self.folder, self.ends)
        if self.data is None:
            self._days = write_days(clicks, self.days, self.folder / "ecom.csv")
        return clicks

    def _start_services(self, *, ui: bool) -> None:
        self._say("the sandbox and the receiver are starting")
        command = Path(sys.executable).with_name("heap-integration")
        heap = self.environment.heap.url
        environ = {"HEAP_SANDBOX_ENVIRONMENTS": json.dumps([self._stand_in()])}
        port = heap.rpartition(":")[2]
        self.services.start(
            "sandbox", [command, "sandbox", "--port", port, "--state", self.folder / "sandbox.db"], environ, heap
        )
        self.services.start(
            "receiver", [command, "receive", "-e", NAME, "--port", self.receiver.rpartition(":")[2]], {}, self.receiver
        )
        home = self._dagster_home()
        dagster = Path(sys.executable).with_name("dagster")
        # Several processes that make a new instance's tables at once fail.
        self.services.start("dagster-instance", [dagster, "instance", "info"], home)
        self.services.wait_for("sandbox", f"{heap}/_state", 30)
        self.services.wait_for("receiver", f"{self.receiver}/health", 30)
        self.services.finish("dagster-instance")
        if ui:
            address = ["-h", "127.0.0.1", "-p", DAGSTER.rpartition(":")[2]]
            self.services.start("dagster", [dagster, "dev", "-w", "workspace.yaml", *address], home, DAGSTER)
            self.services.start("docs", [command, "docs", "--port", DOCS.rpartition(":")[2]], {}, DOCS)

    def _stand_in(self) -> dict[str, str]:
        """Return the sandbox's side of the environment's secrets."""
        secrets = self.environment.secrets()
        value = {field: secret.value(self.variables) for field, secret in secrets.items()}
        return {
            "app_id": self.environment.heap.app_id,
            "heap_api_key": value["heap.api_key"],
            "heap_webhook_secret": value["heap.segment_sync.webhook_secret"],
            "heap_client_id": "demo",
            "heap_client_secret": value["heap.api_key"],
            "userflow_api_key": value["destinations.userflow.api_key"],
            "userflow_signing_secret": value["sources.userflow.signing_secret"],
            "userpilot_api_key": value["destinations.userpilot.api_key"],
            "customerio_site_id": value["destinations.customerio.site_id"],
            "customerio_api_key": value["destinations.customerio.api_key"],
            "customerio_app_api_key": value["destinations.customerio.app_api_key"],
            "webhook_secret": value["destinations.webhooks[0].secret"],
        }

    def _dagster_home(self) -> dict[str, str]:
        home = self.root / "data" / "dagster"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / "dagster.yaml", home)
        return {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}

    def _load_data(self, hub: Hub) -> list[tuple[date, date]]:
        """Load a file of the user's own; return the ranges of days to send."""
        today = datetime.now(UTC).date()
        if self.data is None:
            first, last = self._days
            return [(first, max(last, today))] if self.ends == "today" else [(first, last), (today, today)]
        self._say(f"{self.data.name} is being loaded")
        hub.load_file(self.data, self.mapping, lambda so_far: self._say(f"{so_far.read:,} lines are loaded"))
        with hub.warehouse.read() as con:
            pending = pending_days(con)
        first = max(pending) - timedelta(days=self.days - 1) if pending and self.days is not None else date.min
        return day_ranges({today, *(day for day in pending if day >= first)}, "all")

    def _deliver(self, hub: Hub, ranges: list[tuple[date, date]], *, once: bool) -> None:
        self._wait_for_webhooks()
        if not once:
            self._watch(hub, ranges)
            return
        self._say("Dagster is materializing the segments" + (" and the days" if ranges else ""))
        self._materialize("segments", f'key:"{NAME}/heap_segments/*"+')
        if not ranges:
            self.services.finish("segments")
        for first, last in ranges:
            self._materialize("events", f'key:"{NAME}/events/*"', "--partition-range", f"{first}...{last}")
            self.services.finish("events")
        self.services.finish("segments")

    def _bring_home(self) -> None:
        """Let Heap write a dump of what it has, load it, build the models, and send audiences and profiles out."""
        self.world.dump(self._bucket())
        self._say("Dagster is loading Heap's dump, building the models and sending audiences and profiles out")
        today = datetime.now(UTC).date().isoformat()
        families = " or ".join(f'key:"{NAME}/{family}/*"' for family in ("heap_connect", "models", "exports"))
        selection = f'{families} or key:"{NAME}/audiences/*"+ or key:"{NAME}/*_profiles/*"'
        config = json.dumps({"ops": {"models": {"config": {"days": "changed"}}}})
        self._materialize("home", selection, "--partition", today, "--config-json", config)
        self.services.finish("home")

    def _bucket(self) -> str:
        dumps = self.environment.heap_connect.s3
        if dumps is None:
            raise DemoFailed(f"{self.environment.file} has no heap_connect.s3")
        return dumps.bucket

    def _materialize(self, name: str, selection: str, *options: str) -> None:
        dagster: list[str | Path] = [Path(sys.executable).with_name("dagster"), "asset", "materialize"]
        dagster += ["-m", "heap_integration.definitions", "-a", NAME, "--select", selection, *options]
        self.services.start(name, dagster, self._dagster_home())

    def _wait_for_webhooks(self) -> None:
        while self.world.counts()["userflow_webhooks_waiting"]:
            self.services.check()
            time.sleep(0.2)
        # The receiver closes a segment of its landing folder half a second after its first line.
        time.sleep(1.2)

    def _watch(self, hub: Hub, ranges: list[tuple[date, date]]) -> None:
        """Wait until the sensors have carried everything to its end."""
        self.services.wait_for("dagster", f"{DAGSTER}/server_info", 180)
        end = time.monotonic() + PATIENCE.total_seconds()
        while time.monotonic() < end:
            self.services.check()
            status = read_status(hub)
            waiting = sum(status["waiting"].values())
            with hub.warehouse.read() as con:
                pending = sum(day.pending for first, last in ranges for day in day_counts(con, first, last))
            self._say(f"sensors are at work: {pending:,} events are pending, {waiting} inputs are waiting")
            if not pending and not waiting:
                return
            time.sleep(POLL_SECONDS)
        raise DemoFailed(f"after {PATIENCE} not everything is through; the runs tell why: {DAGSTER}/runs")

    def _report(self, hub: Hub, before: dict[str, Any]) -> None:
        now = read_status(hub)
        events, earlier = now["events"], before["events"]
        members, earlier_members = self._members(hub), before["held"]
        held = {
            route.name: self.world.members(route.destination, route.sync)
            for route in routes(hub.environment)
            if isinstance(route.sync, SegmentSync)
        }
        table = Table(title="What happened", title_justify="left")
        for heading in ("", "this start", "in all", "in the sandbox"):
            table.add_column(heading, justify="right" if heading else "left")

        def row(name: str, since: int, total: int, sandbox: int | None = None) -> None:
            table.add_row(name, f"{since:,}", f"{total:,}", "" if sandbox is None else f"{sandbox:,}")

        arrived, told = self.world.events(), self.world.profiles()
        # What Userflow tells of attributes that the hub has set is read, and of no use.
        read, before_read = (numbers["read"] - numbers["unused"] for numbers in (events, earlier))
        row("lines read", read - before_read, read)
        accepted, profiles = events["accepted"] - now["profiles"], now["profiles"]
        known = earlier["accepted"] - before["profiles"]
        row("events accepted", accepted - known, accepted, arrived)
        row("profiles accepted", profiles - before["profiles"], profiles, told)
        row("pending", events["pending"] - earlier["pending"], events["pending"])
        refused = events["rejected"] + events["refused"]
        row("rejected", refused - earlier["rejected"] - earlier["refused"], refused)
        home = self._home(hub)
        row("events back home", home - before["home"], home, arrived)
        for change in ("added", "removed"):
            total = now["members"][change]
            row(f"members and profiles {change}", total - before["members"][change], total)
        refused_members = [sum(segment["rejected"] for segment in status["segments"]) for status in (before, now)]
        row("members refused", refused_members[1] - refused_members[0], refused_members[1])
        now_held = sum(members.values())
        row("members now", now_held - sum(earlier_members.values()), now_held, sum(held.values()))
        self.out.print(table)
        faults = list(now["faults"])
        if arrived != accepted:
            faults.append(f"the hub counts {accepted:,} accepted events, the sandbox holds {arrived:,}")
        if told != profiles:
            faults.append(f"the hub counts {profiles:,} accepted profiles, the sandbox holds {told:,}")
        if home != arrived:
            faults.append(f"the models hold {home:,} events, the sandbox {arrived:,}")
        if members != held:
            faults.append(f"the hub counts the members {members}, the sandbox holds {held}")
        if faults:
            raise DemoFailed("the counts don't add up: " + "; ".join(faults))
        self.out.print("[green]The counts add up at both ends.[/]")

    def _members(self, hub: Hub) -> dict[str, int]:
        """Return how many members the destination of each segment has acknowledged."""
        followed = [route for route in routes(hub.environment) if isinstance(route.sync, SegmentSync)]
        with hub.warehouse.read(ample=True) as con:
            return {route.name: baseline_size(con, route.name) for route in followed}

    def _home(self, hub: Hub) -> int:
        """Return how many events the models hold, which came out of Heap's dumps."""
        with hub.warehouse.read() as con:
            made = con.execute("from duckdb_tables() where schema_name = 'models' and table_name = 'int_events'")
            if made.fetchone() is None:
                return 0
            (events,) = con.execute("select count(*) from models.int_events").fetchone() or (0,)
        return int(events)

    def _stay(self) -> None:
        self.out.print(
            f"\nDagster UI       {DAGSTER}\nSandbox console  {self.environment.heap.url}\nDocs             {DOCS}"
        )
        self.out.print("Everything keeps running until Ctrl-C.")
        while True:
            self.services.check()
            time.sleep(POLL_SECONDS)

    def _say(self, words: str) -> None:
        self._status.update(f"{words} …")
