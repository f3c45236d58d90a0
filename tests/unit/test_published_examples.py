"""The published reference and protocol in `tests/published` match the API documents."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.documents import (
    Schema,
    answer_schema,
    frame_validator,
    live,
    payload_schema,
    property_names,
    request_schema,
    resolved,
    rest,
    validator,
)

PUBLISHED = Path(__file__).parents[1] / "published"
REFERENCE = (PUBLISHED / "api-reference.txt").read_text(encoding="utf-8")
PROTOCOL = (PUBLISHED / "protocol.md").read_text(encoding="utf-8")

# Fields that the protocol defines beyond the published examples.
ROOM = {"lastSeq", "unreadCount", "isMember", "directUserIds"}
ADDED: dict[str, set[str]] = {
    "GET /v1/chatrooms": ROOM,
    "GET /v1/chatrooms/{chatroomId}/messages": {"seq", "rev", "clientMessageId"},
    "POST /v1/chatrooms/{chatroomId}/messages": {"user", "seq", "rev", "clientMessageId"},
    "chat:message": {"seq", "rev", "clientMessageId", "user"},
    "market:price": {"timestamp", "seq"},
    "notification:new": {"createdAt"},
}


class Example(NamedTuple):
    """A block of the reference. `call` is the REST call of its section."""

    call: str
    body: Any


def examples() -> Iterator[Example]:
    """Return the JSON blocks of the reference in order."""
    call = ""
    lines = iter(REFERENCE.splitlines())
    for line in lines:
        if re.match(r"(GET|POST|PUT|DELETE) /v1", line):
            call = line.replace(":chatroomId", "{chatroomId}")
        if line == "{":
            block = [line]
            while block[-1] != "}":
                block.append(next(lines))
            yield Example(call, json.loads("\n".join(block)))


EXAMPLES = list(examples())
ANSWERED = [example for example in EXAMPLES if "success" in example.body]
FRAMES = [example.body for example in EXAMPLES if ":" in str(example.body.get("type"))]
BODIES = [example for example in EXAMPLES if example not in ANSWERED and example.body not in FRAMES]


def check(kind: str, schema: Schema, document: Schema, body: Any) -> None:
    """Validate, except for later additions; fail on a field that is not in the document."""
    errors = list(validator(schema, document).iter_errors(body))
    assert {error.validator for error in errors} <= {"required"}, errors
    missing = {match for error in errors for match in re.findall(r"^'(\w+)' is a required", error.message)}
    assert missing == ADDED.get(kind, set())
    assert set(names_in(body)) <= set(property_names(schema, document))


def names_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from names_in(item)


def test_every_reference_block_is_classified() -> None:
    assert (len(ANSWERED), len(BODIES), len(FRAMES)) == (3, 2, 7)


@pytest.mark.parametrize("example", ANSWERED, ids=lambda example: example.call)
def test_published_answer_matches_document(example: Example) -> None:
    method, path = example.call.split()
    check(example.call, answer_schema(method, path, example.body["status"]), rest(), example.body)


@pytest.mark.parametrize("example", BODIES, ids=lambda example: example.call)
def test_published_body_matches_document(example: Example) -> None:
    method, path = example.call.split()
    schema = request_schema(method, path)
    validator(schema, rest()).validate(example.body)
    assert set(example.body) <= set(property_names(schema, rest()))


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame["type"])
def test_published_event_matches_document(frame: dict[str, Any]) -> None:
    check(frame["type"], payload_schema("server", frame["type"]), live(), frame)


def client_frames() -> Iterator[dict[str, Any]]:
    """Return the frames of the reference's JavaScript whose values are all literals."""
    for literal in re.findall(r"JSON\.stringify\((\{.*?\})\)", REFERENCE, re.DOTALL):
        text = re.sub(r"(\w+): ", r'"\1": ', literal.replace("'", '"'))
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            assert re.search(r"this\.|\.\.\.|chatroomId,", literal), literal  # contains variables


def test_published_javascript_frames_match_document() -> None:
    frames = list(client_frames())
    assert [frame["type"] for frame in frames] == ["auth", "subscribe", "subscribe", "subscribe", "ping"]
    for frame in frames:
        frame_validator("client", frame["type"]).validate(frame)
        assert set(frame) <= set(property_names(payload_schema("client", frame["type"]), live()))


# The protocol -------------------------------------------------------------------------------------------------------

ROWS = [line.strip("|").split(" | ") for line in PROTOCOL.splitlines() if line.startswith('| `{"type"')]


def test_frame_table_is_complete() -> None:
    assert len(ROWS) == 12


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_protocol_frame_matches_document(row: list[str]) -> None:
    snippet = re.findall(r"`(\{.*?\})`", row[0])[0]
    type_ = re.findall(r'"type":"([\w:]+)"', snippet)[0]
    schema = payload_schema("client", type_)
    options = schema.get("oneOf", [schema])
    if channel := re.findall(r'"channel":"(\w+)"', snippet):
        options = [option for option in options if option["properties"]["channel"] == {"const": channel[0]}]
        assert len(options) == 1
    fields = re.findall(r'"(\w+)"(\?)?', re.sub(r':"[^"]*"', "", snippet))
    assert fields
    for name, optional in fields:
        for option in options:
            assert name in option["properties"], name
            assert (name in option["required"]) == (not optional), name


ANSWERS = [
    (type_, fields) for row in ROWS for type_, fields in re.findall(r"`([a-z]+(?::[a-z]+)?)` `(\{[^`]*\})`", row[1])
]


SECOND_PART_FIELDS = {"rev"}


def test_answer_table_is_complete() -> None:
    assert [type_ for type_, _ in ANSWERS] == [
        *("auth:ok", "subscribed", "subscribed", "chat:ack", "chat:typing", "chat:read", "presence:state", "pong")
    ]


@pytest.mark.parametrize(("type_", "fields"), ANSWERS)
def test_protocol_answer_matches_document(type_: str, fields: str) -> None:
    names = set(re.findall(r"[a-zA-Z]\w*", fields))
    known = set(property_names(payload_schema("server", type_)["properties"]["data"], live()))
    assert known - names <= SECOND_PART_FIELDS if type_ != "subscribed" else names <= known
    assert names <= known


def test_protocol_error_matches_document() -> None:
    fields = re.findall(r'Error: `\{"type":"error","id"\?,"data":\{(.*?)\}\}`', PROTOCOL)[0]
    data = resolved(payload_schema("server", "error")["properties"]["data"], live())
    optional = {name: bool(mark) for name, mark in re.findall(r'"(\w+)"(\?)?', fields)}
    assert {name: name not in data["required"] for name in optional} == optional
    codes = set(re.findall(r"`([A-Z_]{8,})`", PROTOCOL.partition("Codes:")[2].partition("| Close code")[0]))
    assert codes | {"CONFLICT", "EDIT_WINDOW"} == set(data["properties"]["code"]["enum"])


def test_protocol_close_codes_match_document() -> None:
    table = PROTOCOL.partition("| Close code |")[2].partition("\n\n")[0]
    codes = {code for row in table.splitlines()[2:] for code in re.findall(r"\d{4}", row.split("|")[1])}
    assert set(live()["x-close-codes"]) - codes == {"1011"}
    assert len(codes) == 11


def test_protocol_event_matches_document() -> None:
    text = re.findall(r'^    (\{"specversion".*?\}\})$', PROTOCOL, re.DOTALL | re.MULTILINE)[0]
    event = json.loads(text.replace(", …", ""))
    validator(live()["components"]["messages"]["event"]["payload"], live()).validate(event)


# Its calls ----------------------------------------------------------------------------------------------------------


def calls() -> Iterator[tuple[str, str, list[str]]]:
    """Return method, path and query parameters of every call in the table on REST."""
    table = PROTOCOL.partition("| Call | Notes |")[2].partition("\n\n")[0]
    methods, path = "", ""
    for cell in (row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")):
        for part in re.sub(r"[|`]", " ", cell).replace(" · ", " \n ").split("\n"):
            *words, target = part.split()
            methods = words[0] if words else methods
            before, _, query = target.partition("?")
            path = before if before.startswith("/v1") else path.rpartition("/")[0] + before
            for method in methods.split("·"):
                yield method, path, [name.partition("=")[0] for name in query.split("&") if name]


CALLS = list(calls())
_MESSAGE = "/v1/chatrooms/{chatroomId}/messages/{messageId}"
SECOND_PART_CALLS = {
    ("GET", _MESSAGE),
    ("PATCH", _MESSAGE),
    ("DELETE", _MESSAGE),
    ("GET", f"{_MESSAGE}/replies"),
    ("GET", f"{_MESSAGE}/reactions"),
    ("PUT", _MESSAGE + "/reactions/{emoji}"),
    ("DELETE", _MESSAGE + "/reactions/{emoji}"),
    ("GET", "/v1/chatrooms/{chatroomId}/pins"),
    ("GET", "/v1/chatrooms/{chatroomId}/messages/search"),
    ("GET", "/v1/search"),
    ("PUT", "/v1/chatrooms/{chatroomId}/pins/{messageId}"),
    ("DELETE", "/v1/chatrooms/{chatroomId}/pins/{messageId}"),
}


def test_call_table_is_complete() -> None:
    assert len(CALLS) == len({(method, path) for method, path, _ in CALLS})
    documented = {(method.upper(), path) for path, item in rest()["paths"].items() for method in item}
    assert documented >= SECOND_PART_CALLS
    assert len(CALLS) == len(documented - SECOND_PART_CALLS) - 1  # `/v1/presence` appears in a note


@pytest.mark.parametrize(("method", "path", "query"), CALLS)
def test_protocol_call_is_in_document(method: str, path: str, query: list[str]) -> None:
    pattern = re.compile(re.sub(r":\w+", r"\\{\\w+\\}", path))
    (item,) = [item for documented, item in rest()["paths"].items() if pattern.fullmatch(documented)]
    parameters = {parameter["name"] for parameter in item[method.lower()].get("parameters", ())}
    assert set(query) <= parameters


@pytest.mark.parametrize(
    ("words", "component"),
    [("members are", "MemberView"), ("candles are", "CandleData"), ("alerts are", "AlertView")],
)
def test_protocol_record_matches_document(words: str, component: str) -> None:
    fields = re.findall(rf"{words} `\{{(.*?)\}}`", PROTOCOL)[0]
    names = [field.partition(":")[0].strip() for field in fields.split(",")]
    assert names == list(rest()["components"]["schemas"][component]["properties"])
