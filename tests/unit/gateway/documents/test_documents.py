"""The OpenAPI and AsyncAPI documents are valid and match the code."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from gateway.documents import DOCUMENTS
from gateway.documents.asyncapi import ANSWERS, CLOSES
from gateway.documents.typescript import EVENT_TYPES_PATH, declarations
from gateway.rest.groups import GROUPS
from shared.protocol.client_frames import REQUESTS
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import SERVER_FRAMES
from tests.support.documents import live, payload_schema, resolved, rest, schema_of, validator

PROJECT = Path(__file__).parents[4]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_committed_document_matches_code(name: str) -> None:
    written = (PROJECT / "docs" / name).read_text(encoding="utf-8")
    assert json.loads(written) == DOCUMENTS[name](), "the code has changed: `make docs` writes the documents anew"


def test_openapi_is_valid() -> None:
    validate(rest())


def references(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        if isinstance(document.get("$ref"), str):
            yield document
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from references(item)


@pytest.mark.parametrize("document", [rest(), live()])
def test_every_reference_resolves(document: dict[str, Any]) -> None:
    found = list(references(document))
    assert len(found) > 50
    for reference in found:
        resolved(reference, document)


def test_every_component_is_used() -> None:
    for document in (rest(), live()):
        used = {reference["$ref"] for reference in references(document)}
        components = {f"#/components/{kind}/{name}" for kind in ("schemas",) for name in document["components"][kind]}
        assert components - used == set()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in rest()["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def test_document_lists_exactly_the_served_calls() -> None:
    served = {(call.method, call.path) for group in GROUPS.values() for call in group.calls()}
    assert {(method, path) for method, path, _ in operations()} == served
    assert len(served) > 25


def test_every_call_has_summary_and_unique_name() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    assert all(operation["summary"].endswith(".") for _, _, operation in operations())


def test_call_examples_match_their_schemas() -> None:
    checked = 0
    for _, _, operation in operations():
        holders = [resolved(response, rest()) for response in operation["responses"].values()]
        for holder in [*holders, *filter(None, [operation.get("requestBody")])]:
            content = holder["content"]["application/json"]
            if "example" in content:
                validator(schema_of(holder), rest()).validate(content["example"])
                checked += 1
    assert checked > 30


def test_frame_examples_match_their_schemas() -> None:
    for message in live()["components"]["messages"].values():
        assert message["examples"]
        for example in message["examples"]:
            validator(message["payload"], live()).validate(example["payload"])


def test_every_client_frame_is_described_with_its_answer() -> None:
    assert set(ANSWERS) == {*REQUESTS, "subscribe", "unsubscribe"}
    for name, answer in ANSWERS.items():
        payload_schema("client", name)
        assert answer in SERVER_FRAMES


def test_every_close_code_has_a_description() -> None:
    assert set(CLOSES) == set(CloseCode)
    assert set(live()["x-close-codes"]) == {str(code.value) for code in CloseCode}


def test_every_server_frame_is_described() -> None:
    made = set()
    for service in ("gateway", "chat_service", "market_feed", "notifier", "shared"):
        for path in (PROJECT / service).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Name(id="frame") | ast.Attribute(attr="_announce"), args=[first, *_]):
                        made |= {first.value} if isinstance(first, ast.Constant) else set()
    assert {"auth:ok", "chat:message", "user:online", "market:price", "server:drain", "error"} <= made
    assert made - set(SERVER_FRAMES) == set()


def test_event_types_of_the_javascript_client_are_up_to_date() -> None:
    assert EVENT_TYPES_PATH.read_text(encoding="utf-8") == declarations(), "make docs"
