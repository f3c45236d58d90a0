"""The API documents: the schema of a frame or an answer, and validation against it."""

import functools
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

from gateway.documents.asyncapi import asyncapi
from gateway.documents.openapi import openapi

Schema = dict[str, Any]


@functools.cache
def rest() -> Schema:
    """Return the OpenAPI document."""
    return openapi()


@functools.cache
def live() -> Schema:
    """Return the AsyncAPI document."""
    return asyncapi()


def validator(schema: Schema, document: Schema) -> Draft202012Validator:
    """Return a validator of a schema that refers to components of its document."""
    return Draft202012Validator({**schema, "components": document["components"]})


def payload_schema(sender: str, type_: str) -> Schema:
    """Return the schema of a frame; `sender` is client or server."""
    message = live()["components"]["messages"][f"{sender}-{type_.replace(':', '-')}"]
    schema: Schema = message["payload"]
    return schema


@functools.cache
def frame_validator(sender: str, type_: str) -> Draft202012Validator:
    """Return a validator of the frames of a type."""
    return validator(payload_schema(sender, type_), live())


def answer_schema(method: str, path: str, status: int) -> Schema:
    """Return the schema of an answer; `path` is as in the document."""
    response = rest()["paths"][path][method.lower()]["responses"][str(status)]
    return schema_of(resolved(response, rest()))


def request_schema(method: str, path: str) -> Schema:
    """Return the schema of a body."""
    return schema_of(rest()["paths"][path][method.lower()]["requestBody"])


def schema_of(holder: Schema) -> Schema:
    """Return the schema of a body or an answer."""
    schema: Schema = holder["content"]["application/json"]["schema"]
    return schema


def resolved(schema: Schema, document: Schema) -> Schema:
    """Return the target of a reference; anything else unchanged."""
    while "$ref" in schema:
        target: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = target
    return schema


def property_names(schema: Schema, document: Schema) -> Iterator[str]:
    """Return the names of all properties of a schema, at any depth."""
    schema = resolved(schema, document)
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from property_names(inner, document)
    for inner in (*schema.get("oneOf", ()), *schema.get("anyOf", ()), *filter(None, [schema.get("items")])):
        yield from property_names(inner, document)
