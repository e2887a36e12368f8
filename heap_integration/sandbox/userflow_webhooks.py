"""Userflow's webhooks: notifications that wait in the state until their subscribers received them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import orjson

from heap_integration.sandbox.settings import SandboxSettings
from heap_integration.sandbox.state import State
from heap_integration.sandbox.userflow_objects import Objects, now_text

API_VERSION = "2020-01-03"
_AT_ONCE = 8
_A_ROUND = 64


def signature_header(secret: str, body: bytes, seconds: int) -> str:
    """Return the value of ``Userflow-Signature`` for a body sent at that moment."""
    mac = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={mac}"


def covers(subscribed: str, topic: str) -> bool:
    """Say whether a subscribed topic, which stands for its whole family, covers one."""
    return subscribed in ("*", topic) or topic.startswith(f"{subscribed}.")


class UserflowWebhooks:
    """Queues notifications with the change that caused them and sends them until received.

    At least once: a process that ends between sending and noting so sends again.
    """

    def __init__(self, settings: SandboxSettings, state: State, client: Callable[[], httpx.AsyncClient]) -> None:
        self.settings = settings
        self.state = state
        self.objects = Objects(state)
        self._client = client
        self._wake = asyncio.Event()

    def notify(self, app_id: str, topic: str, thing: dict[str, Any], *, family: str = "", **beside: Any) -> None:
        """Queue a notification for every subscription to the topic; part of the caller's transaction.

        ``family`` is the longer topic that subscriptions may name, such as ``event.tracked.flow_started``.
        """
        subscriptions = [
            each
            for each in self.objects.find(app_id, "webhook_subscription")
            if not each["disabled"] and any(covers(subscribed, family or topic) for subscribed in each["topics"])
        ]
        if not subscriptions:
            return
        body = orjson.dumps(
            {
                "id": str(uuid.uuid4()),
                "object": "webhook_notification",
                "api_version": API_VERSION,
                "created_at": now_text(),
                "data": {"object": thing, **beside},
                "topic": topic,
                # clients disagree on where these lie, so they lie in both places
                **beside,
            }
        )
        self.state.con.executemany(
            "INSERT INTO userflow_deliveries (app_id, subscription_id, topic, body, attempts, due_at, status)"
            " VALUES (?, ?, ?, ?, 0, ?, 'pending')",
            [(app_id, each["id"], family or topic, body, time.time()) for each in subscriptions],
        )
        self._wake.set()

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            self._wake.clear()
            due = self.state.rows(
                "SELECT * FROM userflow_deliveries WHERE status = 'pending' AND due_at <= ? ORDER BY id LIMIT ?",
                time.time(),
                _A_ROUND,
            )
            if due:
                await self._round(due)
            else:
                await self._idle()

    async def _idle(self) -> None:
        row = self.state.row("SELECT min(due_at) AS at FROM userflow_deliveries WHERE status = 'pending'")
        pause = None if row is None or row["at"] is None else max(0.0, row["at"] - time.time())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

    async def _round(self, due: list[sqlite3.Row]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(row: sqlite3.Row) -> str | None:
            async with gate:
                return await self._send(row)

        errors = await asyncio.gather(*(one(row) for row in due))
        done: Counter[tuple[str, str]] = Counter()
        with self.state.write() as con:
            for row, error in zip(due, errors, strict=True):
                if error is None:
                    con.execute("DELETE FROM userflow_deliveries WHERE id = ?", (row["id"],))
                    done[row["app_id"], "userflow_webhooks_delivered"] += 1
                    continue
                attempts = row["attempts"] + 1
                status = "failed" if attempts >= self.settings.webhook_attempts else "pending"
                pause = self.settings.retry_seconds * 2 ** (attempts - 1)
                con.execute(
                    "UPDATE userflow_deliveries SET attempts = ?, due_at = ?, status = ?, error = ? WHERE id = ?",
                    (attempts, time.time() + pause, status, error, row["id"]),
                )
                done[row["app_id"], "userflow_webhooks_failed"] += status == "failed"
            for (app_id, name), amount in done.items():
                self.state.count(app_id, **{name: amount})

    async def _send(self, row: sqlite3.Row) -> str | None:
        """Send one notification; return what went wrong, or None."""
        subscription = self.objects.get(row["app_id"], "webhook_subscription", row["subscription_id"])
        environment = self.settings.environment(row["app_id"])
        if subscription is None or subscription["disabled"] or environment is None:
            return None
        secret = environment.userflow_signing_secret.get_secret_value()
        headers = {
            "Content-Type": "application/json",
            "Userflow-Signature": signature_header(secret, row["body"], int(time.time())),
        }
        try:
            answer = await self._client().post(subscription["url"], content=row["body"], headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__
        return None if answer.is_success else f"status {answer.status_code}"
