"""TypeScript declarations of every server frame, generated from the AsyncAPI document."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.documents.asyncapi import asyncapi
from shared.protocol.event_frames import EVENT_FRAMES
from shared.protocol.server_frames import SERVER_FRAMES

Schema = dict[str, Any]

EVENT_TYPES_PATH = Path(__file__).parents[1] / "client" / "javascript" / "realtime-events.d.ts"
HEAD = """/** Data of every server frame. Generated from docs/asyncapi.json by `make docs`: do not edit. */
"""
_NAMES = {
    "ErrorData": "ServerError",
    "PresenceData": "PresenceChange",
    "PresenceView": "Presence",
    "TypingMark": "Typing",
    "UserProfile": "Profile",
}
_OPEN = {struct.__name__ for struct in EVENT_FRAMES.values()}  # may carry further fields
_PRIMITIVES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def declarations() -> str:
    """Return the text of `realtime-events.d.ts`: one interface per component, then `ServerEvents` by frame type."""
    document = asyncapi()
    components: dict[str, Schema] = document["components"]["schemas"]
    messages: dict[str, Schema] = document["components"]["messages"]
    blocks = [HEAD]
    blocks += ["\n".join(_interface(name, schema)) + "\n" for name, schema in sorted(components.items())]
    blocks.append("\n".join(_event_map(messages)) + "\n")
    return "\n".join(blocks)


def _interface(name: str, schema: Schema) -> Iterator[str]:
    if description := schema.get("description"):
        yield from _comment(description)
    yield f"export interface {_name(name)} {{"
    required = schema.get("required", [])
    for field, inner in schema["properties"].items():
        mark = "" if field in required else "?"
        yield f"  {field}{mark}: {_type(inner)};"
    if name in _OPEN:
        yield "  [field: string]: unknown;"
    yield "}"


def _event_map(messages: dict[str, Schema]) -> Iterator[str]:
    yield "/** Data by frame type. */"
    yield "export interface ServerEvents {"
    for key, message in messages.items():
        if key.startswith("server-") and message["name"] in SERVER_FRAMES:
            yield f"  '{message['name']}': {_type(message['payload']['properties']['data'])};"
    yield "}"


def _comment(text: str) -> Iterator[str]:
    lines = text.splitlines()
    if len(lines) == 1:
        yield f"/** {lines[0]} */"
        return
    yield "/**"
    yield from (f" * {line}".rstrip() for line in lines)
    yield " */"


def _type(schema: Schema) -> str:
    """Return the TypeScript type of a schema. Raises KeyError for a schema that no struct produces."""
    if "$ref" in schema:
        return _name(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return f"'{schema['const']}'"
    if "enum" in schema:
        return " | ".join(f"'{value}'" for value in schema["enum"])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " | ".join(_type(option) for option in schema[choice])
    if schema.get("type") == "array":
        inner = _type(schema["items"])
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    return _PRIMITIVES[schema["type"]]


def _name(component: str) -> str:
    return _NAMES.get(component, component.removesuffix("Data"))
