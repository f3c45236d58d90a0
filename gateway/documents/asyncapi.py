"""The AsyncAPI 3.0 document of the WebSocket and of internal events."""

from collections.abc import Iterable
from typing import Any

from gateway.documents.schemas import Schema, example_of, schemas_of
from shared.bus.events import CloudEvent
from shared.bus.topology import EVENTS
from shared.protocol.client_frames import REQUESTS, TARGETS
from shared.protocol.close_codes import CloseCode
from shared.protocol.event_frames import EVENT_FRAMES
from shared.protocol.server_frames import SERVER_FRAMES
from shared.version import VERSION

DESCRIPTION = """JSON text frames over one WebSocket: chat, prices, notifications, presence.

The first frame is `auth`. A frame other than `auth` or `ping` on an unauthenticated socket closes it. A client may
still send `subscribe` right behind `auth`: the server reads the next frame only once `auth` is handled. The server
handles the frames of one client in the order sent. An answer carries the `id` of the frame that it answers, if that
frame had one. An `error` does not close the socket; a close code gives the reason for a close. Send `ping` every 30
seconds: the server closes a socket after 60 seconds of silence. The server ignores unknown fields, and clients should
do the same."""

# The reaction of a client to each close code: `x-close-codes`.
CLOSES: dict[int, str] = {
    CloseCode.GOING_AWAY: "From a proxy that stops. Reconnect and resume.",
    CloseCode.UNSUPPORTED: "Binary frame received. Fix the client.",
    CloseCode.TOO_BIG: "Frame larger than 64 KB. Fix the client.",
    CloseCode.INTERNAL: "Internal server error. Reconnect with backoff.",
    CloseCode.RESTARTING: "The server restarts; `server:drain` preceded. Reconnect after its delay and resume.",
    CloseCode.OVERLOADED: "Server overloaded, or too many sockets of this user. Reconnect with backoff.",
    CloseCode.BAD_FRAMES: "10 invalid frames in a row. Fix the client.",
    CloseCode.UNAUTHORIZED: "Token missing, invalid, expired or revoked. Get a new token.",
    CloseCode.FORBIDDEN: "Token of another user, or user banned. Do not reconnect.",
    CloseCode.SILENT: "No frame for 60 s, or no `auth` within 10 s. Reconnect and resume.",
    CloseCode.SLOW: "Client reads too slowly. Reconnect and resume.",
    CloseCode.RATE_ABUSE: "Client kept sending while rate limited. Back off.",
}

# The answer to each client frame. `error` may answer any of them.
ANSWERS: dict[str, str | None] = {
    "auth": "auth:ok",
    "subscribe": "subscribed",
    "unsubscribe": "unsubscribed",
    "chat:send": "chat:ack",
    "chat:direct": "chat:ack",
    "chat:edit": "chat:ack",
    "chat:delete": "chat:ack",
    "chat:react": "chat:ack",
    "chat:typing": "chat:typing",
    "chat:read": "chat:read",
    "presence:get": "presence:state",
    "ping": "pong",
}

FRAME_ID: Schema = {"description": "Repeated in the answer.", "anyOf": [{"type": "string"}, {"type": "number"}]}
TRACEPARENT: Schema = {"description": "W3C trace context that the server's spans continue.", "type": "string"}
HEAD: Schema = {"id": FRAME_ID, "traceparent": TRACEPARENT}  # optional in every client frame
EVENT_TYPE = "^[A-Za-z0-9_-]+(:[A-Za-z0-9_-]+)+$"


def asyncapi() -> dict[str, Any]:
    """Return the document."""
    received = [*REQUESTS.values(), *TARGETS.values(), CloudEvent]
    sent = list(dict.fromkeys(kind for kinds in SERVER_FRAMES.values() for kind in kinds))
    _, components = schemas_of(received, sent)
    messages = {**_client_messages(components), **_server_messages(components), "event": _event_message(components)}
    for kind in received:
        components.pop(kind.__name__)
    live = {name: message for name, message in messages.items() if name != "event"}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Realtime", "version": VERSION, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {
            "gateway": {"host": "localhost:8080", "protocol": "ws", "description": "Any gateway"},
            "broker": {"host": "localhost:5672", "protocol": "amqp", "description": "RabbitMQ, for internal services"},
        },
        "channels": {
            "live": _channel("/v1/live", "gateway", live) | {"bindings": {"ws": {"method": "GET"}}},
            "events": _channel(EVENTS, "broker", ["event"])
            | {
                "description": "A topic exchange. The routing key is the event's type.",
                "bindings": {
                    "amqp": {
                        "is": "routingKey",
                        "exchange": {"name": EVENTS, "type": "topic", "durable": True, "autoDelete": False},
                    }
                },
            },
        },
        "operations": {
            **{_key("receive", name): _receive(name) for name in ANSWERS},
            "sendEvents": {
                "action": "send",
                "summary": "Frames that the server sends on its own",
                "channel": _ref("channels", "live"),
                "messages": _refs(
                    [
                        _key("server", name)
                        for name in SERVER_FRAMES
                        if name not in set(ANSWERS.values()) - {"chat:typing", "chat:read"}
                    ]
                    + ["server-other"]
                ),
            },
            "receiveEvent": {
                "action": "receive",
                "summary": "An internal service publishes an event",
                "channel": _ref("channels", "events"),
                "messages": [_ref("channels", "events", "messages", "event")],
            },
        },
        "components": {"messages": messages, "schemas": components},
        "x-close-codes": {str(code): text for code, text in sorted(CLOSES.items())},
    }


def _channel(address: str, server: str, messages: Iterable[str]) -> Schema:
    refs = {name: _ref("components", "messages", name) for name in messages}
    return {"address": address, "servers": [_ref("servers", server)], "messages": refs}


def _receive(name: str) -> Schema:
    answers = [_key("server", answer) for answer in (ANSWERS[name], "error") if answer is not None]
    return {
        "action": "receive",
        "channel": _ref("channels", "live"),
        "messages": _refs([_key("client", name)]),
        "reply": {"channel": _ref("channels", "live"), "messages": _refs(answers)},
    }


# Messages -----------------------------------------------------------------------------------------------------------


def _client_messages(components: dict[str, Schema]) -> dict[str, Schema]:
    payloads: dict[str, Schema] = {}
    for name in ("subscribe", "unsubscribe"):
        payloads[name] = {"oneOf": [_subscription(components, channel, name) for channel in TARGETS]}
    for name, kind in REQUESTS.items():
        payloads[name] = _with_fields(components[kind.__name__], {"type": {"const": name}, **HEAD}, ["type"])
    entries = [_subscription(components, channel, None) for channel in TARGETS]
    payloads["auth"]["properties"]["subscriptions"]["items"] = {"oneOf": entries}
    return {_key("client", name): _message(name, payloads[name], components) for name in ANSWERS}


def _subscription(components: dict[str, Schema], channel: str, type_: str | None) -> Schema:
    """Return the schema of a subscribe or unsubscribe frame. An entry of `auth.subscriptions` needs no `type`."""
    head = {"type": {"const": type_ or "subscribe"}, **HEAD, "channel": {"const": channel}}
    required = ["channel"] if type_ is None else ["type", "channel"]
    return _with_fields(components[TARGETS[channel].__name__], head, required) | {"title": channel}


def _with_fields(component: Schema, fields: dict[str, Schema], required: list[str]) -> Schema:
    return component | {
        "properties": fields | component["properties"],
        "required": [*required, *component.get("required", [])],
    }


def _server_messages(components: dict[str, Schema]) -> dict[str, Schema]:
    answers = {*ANSWERS.values(), "error"}
    messages: dict[str, Schema] = {}
    for name, kinds in SERVER_FRAMES.items():
        data = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
        payload: Schema = {
            "type": "object",
            "properties": {
                "type": {"const": name},
                **({"id": FRAME_ID} if name in answers else {}),
                "data": data[0] if len(data) == 1 else {"anyOf": data},
            },
            "required": ["type", "data"],
        }
        message = _message(name, payload, components)
        message["summary"] = components[kinds[0].__name__]["description"].partition("\n\n")[0].replace("\n", " ")
        if name in EVENT_FRAMES:
            message["description"] = "Passed on as an internal service published it; may have more fields."
        messages[_key("server", name)] = message
    other: Schema = {
        "type": "object",
        "properties": {"type": {"type": "string", "pattern": EVENT_TYPE}, "data": {"type": "object"}},
        "required": ["type", "data"],
    }
    messages["server-other"] = {
        "name": "any other",
        "summary": "An event of any other type `a.b` that an internal service published, sent as `a:b`.",
        "payload": other,
        "examples": [{"payload": {"type": "quiz:opened", "data": {"quizId": "quiz_1"}}}],
    }
    return messages


def _event_message(components: dict[str, Schema]) -> Schema:
    payload = components["CloudEvent"]
    example = {
        "specversion": "1.0",
        "id": "evt_1",
        "source": "/services/posts",
        "type": "post.created",
        "time": "2025-10-21T12:00:00.000Z",
        "audience": "community:community_789",
        "data": {"postId": "post_123", "communityId": "community_789"},
    }
    return {
        "name": "event",
        "summary": "A CloudEvents 1.0 JSON object.",
        "payload": payload,
        "examples": [{"payload": example}],
    }


def _message(name: str, payload: Schema, components: dict[str, Schema]) -> Schema:
    options = payload.get("oneOf", [payload])
    examples = [{"payload": example_of(option, components)} for option in options]
    if "anyOf" in payload.get("properties", {}).get("data", {}):
        examples = [
            {"payload": {"type": name, "data": example_of(option, components)}}
            for option in payload["properties"]["data"]["anyOf"]
        ]
    return {"name": name, "payload": payload, "examples": examples}


def _key(prefix: str, name: str) -> str:
    """Convert `client`, `chat:send` to `client-chat-send`: component keys cannot contain colons."""
    return f"{prefix}-{name.replace(':', '-')}"


def _ref(*path: str) -> Schema:
    return {"$ref": "#/" + "/".join(path)}


def _refs(messages: Iterable[str]) -> list[Schema]:
    return [_ref("channels", "live", "messages", name) for name in messages]
