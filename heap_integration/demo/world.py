"""What the demo's customer does in the vendors' own products."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx

from heap_integration.demo.clickstream import Click, cart_abandoners, loyal_buyers
from heap_integration.environment import SegmentSync

# A few people that Heap knows and Userflow doesn't, as everywhere.
STRANGERS = 5
GUIDED = 20
INTRODUCED = 40
PLANS = ("free", "team", "business")
COMPANIES = ("acme", "globex", "initech")
STEPS = ("flow_started", "flow_step_seen", "flow_completed", "checklist_task_completed")
VENDORS = ("userflow", "userpilot", "customerio")
SEGMENTS = {"Cart abandoners": (1338065, cart_abandoners), "Loyal buyers": (1338066, loyal_buyers)}


class World:
    """Userflow and Heap as their customer uses them: users, content, segments, webhooks."""

    def __init__(self, heap_url: str, app_id: str, userflow_url: str, userflow_key: str) -> None:
        self._http = httpx.Client(timeout=30)
        self._heap = heap_url
        self._app_id = app_id
        self._userflow = userflow_url
        self._key = {"authorization": f"Bearer {userflow_key}"}

    def settle_in(self, clicks: Sequence[Click], webhook: str) -> None:
        """Give Userflow its users, connect its webhook, and let some users go through a flow; once."""
        users = sorted({click.row["user_id"] for click in clicks})[STRANGERS:]
        for user in users[self.counts()["userflow_users"] :]:
            self._post("/users", {"id": user, "attributes": {"name": user.replace("_", " ").title()}})
        subscriptions = self._http.get(f"{self._userflow}/webhook_subscriptions", headers=self._key).json()["data"]
        if webhook not in {subscription["url"] for subscription in subscriptions}:
            self._post("/webhook_subscriptions", {"url": webhook, "topics": ["event", "user", "group"]})
        done = self.counts()["userflow_events"]
        guided = [(user, step) for user in users[:GUIDED] for step in STEPS]
        for user, step in guided[done:]:
            flow = {"flow_id": "flow-1", "flow_name": "Get started", "page_url": "https://shop.example/"}
            self._post("/events", {"name": step, "user_id": user, "attributes": flow})

    def introduce(self, clicks: Sequence[Click], receiver: str, write_key: str) -> None:
        """Let the shop's backend tell of some buyers and their companies, as a Segment client does; once."""
        if self.profiles():
            return
        users = sorted({click.row["user_id"] for click in clicks})[:INTRODUCED]
        calls: list[dict[str, Any]] = [
            {
                "type": "identify",
                "userId": user,
                "traits": {"plan": PLANS[number % len(PLANS)], "email": f"{user}@shop.example"},
            }
            for number, user in enumerate(users)
        ]
        calls += [{"type": "group", "groupId": name, "userId": users[0], "traits": {"seats": 5}} for name in COMPANIES]
        batch = {"batch": [{**call, "messageId": f"introduction-{number:04}"} for number, call in enumerate(calls)]}
        self._http.post(f"{receiver}/v1/batch", json=batch, auth=(write_key, "")).raise_for_status()

    def profiles(self) -> int:
        """Return how many people and accounts have properties in Heap."""
        users = self._get("/_state/users", app_id=self._app_id, limit=10_000)["users"]
        accounts = self._get("/_state/accounts", app_id=self._app_id)["accounts"]
        return sum(1 for each in (*users, *accounts) if each["properties"])

    def sync_segments(self, clicks: Sequence[Click], now: datetime, webhook: str) -> bool:
        """Let Heap send who entered and left its segments; the first time as they were a day before.

        Return whether this was the first time.
        """
        known = self._get("/_state/segments", members=0)
        first = not any(segment["id"] == SEGMENTS["Cart abandoners"][0] for segment in _rows(known))
        moment = now - timedelta(days=1) if first else now
        for name, (number, rule) in SEGMENTS.items():
            address = f"{self._heap}/_heap/{self._app_id}/segments"
            segment = {"id": number, "name": name, "members": rule(clicks, moment), "webhook_url": webhook}
            self._http.post(address, json=segment).raise_for_status()
            self._http.post(f"{address}/{number}/sync", json={}).raise_for_status()
        return first

    def dump(self, bucket: str) -> None:
        """Let Heap Connect write what is new into its bucket, as it does every day."""
        self._http.post(f"{self._heap}/_heap/{self._app_id}/dumps", json={"address": bucket}).raise_for_status()

    def counts(self) -> dict[str, int]:
        """Return how much of everything has arrived."""
        counts: dict[str, int] = self._get("/_state")["apps"][self._app_id]
        return counts

    def events(self) -> int:
        """Return how many different events Heap holds."""
        return int(self._get("/_state/events/count", app_id=self._app_id)["keys"])

    def members(self, destination: str, segment: SegmentSync) -> int:
        """Return how many users a destination has in the audience of a segment."""
        vendor = destination if destination in VENDORS else "webhook"
        shown = self._get("/_state/vendors", app_id=self._app_id, name=vendor)["vendors"]
        names = {segment.name, f"heap_segment_{segment.slug}"}
        return sum(each["members"] for one in shown for each in one["audiences"] if each["name"] in names)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, path: str, **query: Any) -> Any:
        answer = self._http.get(self._heap + path, params=query)
        answer.raise_for_status()
        return answer.json()

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._http.post(self._userflow + path, json=body, headers=self._key).raise_for_status()


def _rows(answer: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = answer["segments"]
    return rows
