"""The receiver's description of itself in OpenAPI 3.1."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from heap_integration.receiver.clients import PATHS
from heap_integration.receiver.settings import ReceiverSettings

Json = dict[str, Any]

_ERROR: Json = {"$ref": "#/components/schemas/Error"}
_CLIENT_ERROR: Json = {"$ref": "#/components/schemas/ClientError"}
_EMPTY: Json = {"type": "object", "additionalProperties": False}
_ANYTHING: Json = {"type": "object"}
_BOTH_FORMS = ("application/json", "text/plain")
# What any request to an endpoint with a body may be answered.
_COMMON = {
    400: "The body can't be used",
    408: "The body took too long",
    413: "The body is larger than anybody's may be",
    415: "The body's type or compression is not taken",
    503: "It can't be kept now; send it again after Retry-After seconds",
}
_RETRY: Json = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}


def describe(settings: ReceiverSettings) -> Json:
    """Return the OpenAPI description of a receiver with these sources."""
    paths = _own_paths()
    if settings.userflow_secret is not None:
        paths["/userflow"] = {"post": _webhook("Take a notification of Userflow", "userflowSignature", 401)}
    if settings.userpilot_secret is not None:
        paths["/userpilot"] = {"post": _webhook("Take a webhook of Userpilot", "userpilotSignature", 401)}
    if settings.heap_webhooks is not None:
        paths["/heap/events"] = {"post": _webhook("Take an event webhook of Heap", "heapPassword", 401)}
    if settings.segment_sync_secret is not None:
        paths["/heap/segments"] = {"post": _segment_sync()}
    if settings.clients:
        paths |= {f"/v1/{path}": {"post": _client_call(path, kind)} for path, kind in PATHS.items()}
        paths["/v1/projects/{writeKey}/settings"] = {"get": _client_settings()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "heap-integration receiver",
            "version": version("heap-integration"),
            "description": "Takes events and segments that other systems push. 200 means: durable.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _security()},
    }


def _own_paths() -> dict[str, Json]:
    health = _object({"status": {"const": "ok"}, "seconds_since_last_durable_write": {"type": ["number", "null"]}})
    ready = _object({"status": {"const": "ready"}})
    unready = _object({"status": {"const": "unavailable"}, "error": {"type": "string"}})
    return {
        "/health": {"get": _page("Say that the process lives", {200: _json("It does", health)})},
        "/ready": {
            "get": _page(
                "Say whether events can be kept",
                {200: _json("They can", ready), 503: _json("They can't", unready) | {"headers": _RETRY}},
            )
        },
        "/metrics": {
            "get": _page(
                "Show the counts in Prometheus's text format",
                {200: {"description": "The counts", "content": {"text/plain": {"schema": {"type": "string"}}}}},
            )
        },
        "/openapi.json": {"get": _page("Show this description", {200: _json("The description", _ANYTHING)})},
    }


def _page(summary: str, responses: dict[int, Json]) -> Json:
    return {"summary": summary, "responses": {str(status): said for status, said in responses.items()}}


def _webhook(summary: str, scheme: str, unproved: int) -> Json:
    responses = {200: _json("It is durable", _EMPTY), unproved: _json("It is not proved to be theirs", _ERROR)}
    return _posted(summary, _ANYTHING, responses, _ERROR) | {"security": [{scheme: []}]}


def _segment_sync() -> Json:
    either: Json = {kind: {"schema": {}} for kind in _BOTH_FORMS}
    responses = {
        200: {"description": "The page is durable", "content": {"text/plain": {"schema": {"const": "OK"}}}},
        400: {"description": "The page, or the signature's moment, can't be used", "content": either},
        403: _json("It is not signed by this customer's Heap", _ERROR),
        503: {"description": _COMMON[503], "content": either, "headers": _RETRY},
    }
    body: Json = {"$ref": "#/components/schemas/SegmentSyncCall"}
    return _posted("Take a page of Heap's Segment Sync", body, responses, _ERROR) | {"security": [{"heapHash": []}]}


def _client_call(path: str, kind: str) -> Json:
    body: Json = {"$ref": f"#/components/schemas/{kind.capitalize()}"}
    responses = {
        200: _json(
            "It is durable: Segment's clients are told of success, Customer.io's nothing",
            {"oneOf": [_EMPTY, _object({"success": {"const": True}})]},
        ),
        401: _json("The write key is missing or not known", _CLIENT_ERROR)
        | {"headers": {"WWW-Authenticate": {"schema": {"type": "string"}}}},
    }
    strict = {
        "name": "X-Strict-Mode",
        "in": "header",
        "description": "With 1, a call that can't be loaded is refused with 400 instead of being taken and counted",
        "schema": {"type": "string"},
    }
    return _posted(f"Take a call: {kind}", body, responses, _CLIENT_ERROR) | {
        "operationId": f"v1_{path}",
        "parameters": [strict],
        # A write key in the body does as well.
        "security": [{"writeKey": []}, {}],
    }


def _client_settings() -> Json:
    integration = {"apiKey": {"type": "string"}, "apiHost": {"type": "string"}}
    found = _object({"integrations": _ANYTHING, "plan": _ANYTHING})
    found["properties"]["integrations"] = _object(
        {"Segment.io": {"type": "object", "properties": integration, "required": ["apiKey"]}}
    )
    key = {"name": "writeKey", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return _page(
        "Tell a browser or a phone where to send",
        {
            200: _json("The settings", found),
            401: _json("The write key is not known", _CLIENT_ERROR),
            404: _json("There is no such path", _CLIENT_ERROR),
        },
    ) | {"parameters": [key]}


def _posted(summary: str, schema: Json, responses: dict[int, Json], error: Json) -> Json:
    common = {status: _json(words, error) for status, words in _COMMON.items()}
    common[503]["headers"] = _RETRY
    return _page(summary, dict(sorted((common | responses).items()))) | {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
    }


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(properties: dict[str, Json]) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _security() -> dict[str, Json]:
    def signature(header: str, description: str) -> Json:
        return {"type": "apiKey", "in": "header", "name": header, "description": description}

    return {
        "userflowSignature": signature(
            "Userflow-Signature", "t=<seconds>,v1=<hex HMAC-SHA256 of '<t>.<body>'>, at most 300 s old"
        ),
        "userpilotSignature": signature("X-Signature", "t=<time>,v1=<HMAC-SHA256 of '<body>.<t>'>, at most 300 s old"),
        "heapHash": signature(
            "Heap-Hash", "ts:<milliseconds>,hmac:<base64 HMAC-SHA256 of '<ts><body>'>, at most 60 s old"
        ),
        "heapPassword": {"type": "http", "scheme": "basic", "description": "the webhook's user and password"},
        "writeKey": {"type": "http", "scheme": "basic", "description": "the write key as user, no password"},
    }


def _schemas() -> dict[str, Json]:
    text: Json = {"type": ["string", "null"]}
    inner: Json = {"type": ["object", "null"]}
    common = {
        **dict.fromkeys(("userId", "anonymousId", "messageId", "timestamp", "writeKey"), text),
        **dict.fromkeys(("context", "integrations"), inner),
    }

    def call(required: tuple[str, ...], **properties: Json) -> Json:
        return {"type": "object", "properties": {**common, **properties}, "required": list(required)}

    named: Json = {"type": "string", "minLength": 1}
    calls = {
        "Track": call(("event",), event=named, properties=inner),
        "Identify": call((), traits=inner),
        "Page": call((), name=text, properties=inner),
        "Screen": call((), name=text, properties=inner),
        "Group": call(("groupId",), groupId=named, traits=inner),
        "Alias": call(("userId", "previousId"), userId=named, previousId=named),
    }
    one_of = [
        {"allOf": [{"$ref": f"#/components/schemas/{name}"}, _object({"type": {"const": name.lower()}})]}
        for name in calls
    ]
    batch = _object({"batch": {"type": "array", "items": {"oneOf": one_of}}})
    batch["properties"] |= {"context": inner, "integrations": inner, "sentAt": text, "writeKey": text}
    words: Json = {"type": "string"}
    segment = _object({"id": {"type": "integer"}, "name": named})
    data = {"type": "object", "properties": {"segment": segment}, "required": ["segment"]}
    action = {"enum": ["segment.users.sync", "segment.users.drain"]}
    return {
        **calls,
        "Batch": batch,
        "SegmentSyncCall": _object({"action_type": action, "data": data}),
        "Error": _object({"error": words}),
        "ClientError": _object({"error": words, "code": words, "message": words}),
    }
