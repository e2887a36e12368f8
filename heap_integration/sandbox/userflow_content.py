"""Userflow's content: what a new environment holds, and the sessions its events leave behind."""

from __future__ import annotations

import uuid
from typing import Any

from heap_integration.sandbox.state import State
from heap_integration.sandbox.userflow_objects import Object, Objects

_IDS = uuid.UUID("0a6c1c55-52ab-4a43-9a2c-3d5b3f6f7f10")
_CREATED = "2026-01-05T09:00:00.000+00:00"

# type, name, tasks, questions, published
_CONTENT: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...], bool], ...] = (
    ("flow", "Product tour", (), (), True),
    ("flow", "First order", (), (), True),
    ("flow", "NPS survey", (), ("How likely are you to recommend us?",), True),
    ("flow", "New catalogue", (), (), False),
    ("checklist", "Getting started", ("Complete your profile", "Add a product", "Place an order"), (), True),
    ("checklist", "Invite your team", ("Invite a colleague", "Share a wish list"), (), True),
    ("launcher", "Help button", (), (), True),
)
EVENT_NAMES = (
    "announcement_seen",
    "assistant_feedback_submitted",
    "assistant_message_sent",
    "assistant_rating_submitted",
    "banner_dismissed",
    "banner_seen",
    "checklist_completed",
    "checklist_ended",
    "checklist_hidden",
    "checklist_shown",
    "checklist_started",
    "checklist_task_clicked",
    "checklist_task_completed",
    "flow_completed",
    "flow_ended",
    "flow_started",
    "flow_step_seen",
    "launcher_activated",
    "launcher_dismissed",
    "launcher_seen",
    "page_viewed",
    "question_answered",
    "random_ab_assigned",
    "random_number_assigned",
    "resource_center_clicked",
    "resource_center_closed",
    "resource_center_opened",
    "tooltip_target_missing",
)
_KIND_OF_EVENT = {"flow": "flow", "checklist": "checklist", "launcher": "launcher", "question": "flow"}


def stable_id(app_id: str, *names: str) -> str:
    """Return the id of something every environment holds from the start."""
    return str(uuid.uuid5(_IDS, "\0".join((app_id, *names))))


def display_name(name: str) -> str:
    """Return how Userflow shows a code name: flow_started is "Flow Started"."""
    return " ".join(word.capitalize() for word in name.split("_"))


def event_definition(app_id: str, name: str, created_at: str) -> Object:
    """Return the definition of an event; Userflow's own events show a display name."""
    return {
        "id": stable_id(app_id, "event", name),
        "object": "event_definition",
        "created_at": created_at,
        "description": "",
        "display_name": display_name(name) if name in EVENT_NAMES else name,
        "name": name,
    }


def attribute_definition(app_id: str, scope: str, name: str, data_type: str, created_at: str) -> Object:
    """Return the definition of an attribute."""
    return {
        "id": stable_id(app_id, "attribute", scope, name),
        "object": "attribute_definition",
        "created_at": created_at,
        "data_type": data_type,
        "description": "",
        "display_name": name.replace("_", " ").capitalize(),
        "name": name,
        "scope": scope,
    }


class Content:
    """Seeds an environment and keeps its content sessions."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.objects = Objects(state)

    def seed(self, app_id: str) -> None:
        """Give an environment its content and definitions, unless it has them."""
        if self.objects.find(app_id, "content"):
            return
        with self.state.write():
            for name in EVENT_NAMES:
                self.objects.put(app_id, event_definition(app_id, name, _CREATED))
            for name, data_type in (("name", "string"), ("email", "string"), ("signed_up_at", "datetime")):
                self.objects.put(app_id, attribute_definition(app_id, "user", name, data_type, _CREATED))
            for kind, name, tasks, questions, published in _CONTENT:
                self._seed_content(app_id, kind, name, tasks, questions, published=published)

    def _seed_content(
        self,
        app_id: str,
        kind: str,
        name: str,
        tasks: tuple[str, ...],
        questions: tuple[str, ...],
        *,
        published: bool,
    ) -> None:
        content_id = stable_id(app_id, kind, name)
        versions = [stable_id(app_id, kind, name, str(number)) for number in (1, 2)]
        self.objects.put(
            app_id,
            {
                "id": content_id,
                "object": "content",
                "created_at": _CREATED,
                "draft_version_id": versions[1],
                "name": name,
                "published_version_id": versions[0] if published else None,
                "type": kind,
            },
        )
        for number, version_id in enumerate(versions, 1):
            self.objects.put(
                app_id,
                {
                    "id": version_id,
                    "object": "content_version",
                    "content_id": content_id,
                    "created_at": _CREATED,
                    "description": "",
                    "edited_at": _CREATED,
                    "number": number,
                    "_tasks": [{"id": stable_id(app_id, name, task), "name": task} for task in tasks],
                    "_questions": [
                        {"id": stable_id(app_id, name, text), "name": text, "type": "nps"} for text in questions
                    ],
                },
            )

    def follow(self, app_id: str, event: Object) -> None:
        """Open or move on the session that an event of a flow, checklist or launcher belongs to."""
        kind = _KIND_OF_EVENT.get(event["name"].partition("_")[0])
        content = None if kind is None or event["user_id"] is None else self._content(app_id, kind, event)
        if kind is None or content is None:
            return
        session = self._session(app_id, kind, content, event)
        session["last_activity_at"] = event["time"]
        self._move_on(app_id, session, event)
        self.objects.put(app_id, session)

    def _content(self, app_id: str, kind: str, event: Object) -> Object | None:
        attributes = event["attributes"]
        found = self.objects.get(app_id, "content", str(attributes.get(f"{kind}_id", "")))
        if found is None and f"{kind}_name" in attributes:
            named = self.objects.find(app_id, "content", name=str(attributes[f"{kind}_name"]))
            found = next((each for each in named if each["type"] == kind), None)
        return found

    def _session(self, app_id: str, kind: str, content: Object, event: Object) -> Object:
        given = event["attributes"].get(f"{kind}_session_id")
        if given is not None:
            known = self.objects.get(app_id, "content_session", str(given))
        else:
            sessions = self.objects.find(app_id, "content_session", user_id=event["user_id"], content_id=content["id"])
            still_open = [each for each in sessions if not each["completed"]]
            known = still_open[-1] if still_open and not event["name"].endswith("_started") else None
        return known or {
            "id": str(given or uuid.uuid4()),
            "object": "content_session",
            "created_at": event["created_at"],
            "completed": False,
            "completed_at": None,
            "content_id": content["id"],
            "group_id": event["group_id"],
            "is_preview": False,
            "last_activity_at": event["time"],
            "launcher_activated": False,
            "progress": "0",
            "user_id": event["user_id"],
            "version_id": content["published_version_id"] or content["draft_version_id"],
            "_answers": [],
            "_tasks_done": [],
        }

    def _move_on(self, app_id: str, session: Object, event: Object) -> None:
        attributes: dict[str, Any] = event["attributes"]
        match event["name"]:
            case "flow_completed" | "checklist_completed":
                session.update(completed=True, completed_at=event["time"], progress="1")
            case "flow_step_seen" if "flow_step_progress" in attributes:
                session["progress"] = str(attributes["flow_step_progress"])
            case "checklist_task_completed":
                self._task_done(app_id, session, attributes)
            case "launcher_activated":
                session["launcher_activated"] = True
            case "question_answered":
                session["_answers"].append(_answer(event))

    def _task_done(self, app_id: str, session: Object, attributes: dict[str, Any]) -> None:
        task = str(attributes.get("checklist_task_id") or attributes.get("checklist_task_name"))
        if task not in session["_tasks_done"]:
            session["_tasks_done"].append(task)
        version = self.objects.get(app_id, "content_version", session["version_id"])
        total = len(version["_tasks"]) if version else 0
        share = min(1.0, len(session["_tasks_done"]) / total) if total else 0.0
        session["progress"] = f"{share:.2f}".rstrip("0").rstrip(".")


def _answer(event: Object) -> Object:
    attributes = event["attributes"]
    for kind in ("number", "text", "list"):
        if f"{kind}_answer" in attributes:
            value = attributes[f"{kind}_answer"]
            break
    else:
        kind, value = "text", ""
    return {
        "id": f"answer-{event['id']}",
        "object": "content_session_answer",
        "answer_type": kind,
        "answer_value": value if isinstance(value, str) else str(value),
        "created_at": event["created_at"],
        "question_cvid": attributes.get("question_cvid"),
        "question_name": attributes.get("question_name"),
    }
