"""The OpenAPI 3.1 document, built from the calls that the server serves."""

from collections.abc import Iterator
from typing import Any

from gateway.documents.schemas import LIST_ELEMENT, Schema, example_of, schemas_of
from gateway.rest.call import Call, camel
from gateway.rest.envelope import Continuation, Failure, Pagination, shape_of
from gateway.rest.groups import GROUPS
from shared.errors import HTTP_STATUS, ErrorCode
from shared.version import VERSION

DESCRIPTION = """Chat rooms, messages, presence, market prices, notifications and price alerts.

The WebSocket `/v1/live` delivers live events: see `/v1/asyncapi.json`. Times are ISO 8601 in UTC with milliseconds and
`Z`. Ids sort by time, except those of direct rooms. An empty query parameter counts as absent; a list may be repeated,
and any other parameter is given once. Unknown fields and parameters are ignored. Bodies are at most 64 KB long and
uncompressed."""

ENVELOPES = (Failure, Pagination, Continuation)
FAILURES: dict[int, str] = {
    400: "Invalid path segment, query parameter or body field: `VALIDATION`, with `details`.",
    401: "Token missing or invalid: `UNAUTHORIZED`, `TOKEN_EXPIRED`.",
    403: "The caller lacks permission, is banned, or has reached a quota, which is named: `FORBIDDEN`."
    " A message is too old to be edited: `EDIT_WINDOW`.",
    404: "Not found, or not visible to the caller: `NOT_FOUND`.",
    409: "Not possible in the current state, such as an edit of a deleted message: `CONFLICT`.",
    413: "The body is too large: `TOO_LARGE`.",
    414: "The URL is longer than 8 KB: `TOO_LARGE`.",
    415: "The Content-Type, if any, is neither JSON nor plain text, or the body is compressed: `VALIDATION`.",
    429: "The caller's rate is exceeded: `RATE_LIMITED`, with `retryAfterMs` if waiting helps.",
    503: "A service behind the gateway is unavailable; a retry may succeed: `UNAVAILABLE`.",
}
HEADERS: dict[int, Schema] = {
    401: {"WWW-Authenticate": {"schema": {"const": "Bearer"}}},
    429: {"Retry-After": {"description": "Seconds", "schema": {"type": "string", "pattern": "^[0-9]+$"}}},
    503: {"Retry-After": {"description": "Seconds", "schema": {"type": "string", "pattern": "^[0-9]+$"}}},
}


def openapi() -> dict[str, Any]:
    """Return the document."""
    calls = [call for group in GROUPS.values() for call in group.calls()]
    queries = [call.query for call in calls if call.query is not None]
    bodies = [call.body for call in calls if call.body is not None]
    parts = list(dict.fromkeys(part.kind for call in calls for part in call.parts.values()))
    sent = list(dict.fromkeys(call.data for call in calls))
    found, components = schemas_of([*queries, *bodies, *parts], [*sent, *ENVELOPES])
    ids = dict(zip(parts, found[len(queries) + len(bodies) :], strict=False))
    data = found[len(queries) + len(bodies) + len(parts) :]
    writer = _Writer(components, ids, dict(zip([*sent, *ENVELOPES], data, strict=True)))
    paths: dict[str, dict[str, Any]] = {}
    for tag, group in GROUPS.items():
        for call in group.calls():
            paths.setdefault(call.path, {})[call.method.lower()] = writer.operation(call, tag)
    for query in set(queries):
        del components[query.__name__]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Realtime", "version": VERSION, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": tag, "description": group.__doc__} for tag, group in GROUPS.items()],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": components,
            "responses": {str(status): _failure(status) for status in FAILURES},
        },
    }


def _failure(status: int) -> Schema:
    response: Schema = {
        "description": FAILURES[status],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
    }
    return response | ({"headers": HEADERS[status]} if status in HEADERS else {})


class _Writer:
    """Builds operations. `ids` holds the schemas of path segments, `data` those of answers, by their types."""

    def __init__(self, components: dict[str, Schema], ids: dict[Any, Schema], data: dict[Any, Schema]) -> None:
        self._components = components
        self._ids = ids
        self._data = data

    def operation(self, call: Call, tag: str) -> Schema:
        """Return the operation object of one call."""
        summary, _, more = call.doc.partition("\n\n")
        operation: Schema = {"operationId": camel(call.name), "tags": [tag], "summary": summary.replace("\n", " ")}
        if more:
            operation["description"] = more
        if parameters := [*self._path_parameters(call), *self._query_parameters(call)]:
            operation["parameters"] = parameters
        if call.body is not None:
            schema = {"$ref": f"#/components/schemas/{call.body.__name__}"}
            operation["requestBody"] = {"required": not call.is_body_optional, "content": self._content(schema)}
        operation["responses"] = {
            **{str(status): self._success(call, status, text) for status, text in call.statuses.items()},
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(failures_of(call))},
        }
        return operation

    def _path_parameters(self, call: Call) -> Iterator[Schema]:
        for name, kind in call.parts.values():
            yield {"name": name, "in": "path", "required": True, "schema": self._ids[kind]}

    def _query_parameters(self, call: Call) -> Iterator[Schema]:
        if call.query is None:
            return
        component = self._components[call.query.__name__]
        for name, schema in component["properties"].items():
            schema = {key: value for key, value in schema.items() if (key, value) != ("default", None)}
            options = [option for option in schema.pop("anyOf", [schema]) if option != {"type": "null"}]
            schema |= options[0]
            description = schema.pop("description", None)
            is_list = name in shape_of(call.query).lists
            if is_list:
                schema["items"] = schema["items"] | LIST_ELEMENT
            yield {
                "name": name,
                "in": "query",
                "required": name in component.get("required", ()),
                **({"description": description} if description else {}),
                **({"style": "form", "explode": False} if is_list else {}),
                "schema": schema,
            }

    def _success(self, call: Call, status: int, text: str) -> Schema:
        data = self._data[call.data]
        properties: Schema = {"success": {"const": True}, "status": {"const": status}}
        if call.pagination is not None:
            pagination = {"$ref": f"#/components/schemas/{call.pagination.__name__}"}
            properties |= {"data": {"type": "array", "items": data}, "pagination": pagination}
        else:
            properties["data"] = data
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        return {"description": text, "content": self._content(schema)}

    def _content(self, schema: Schema) -> Schema:
        return {"application/json": {"schema": schema, "example": example_of(schema, self._components)}}


def failures_of(call: Call) -> set[int]:
    """Return the failure statuses of a call. Every call requires a token and a service that answers."""
    statuses = {HTTP_STATUS[code] for code in (*call.refuses, ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN)}
    statuses.add(HTTP_STATUS[ErrorCode.UNAVAILABLE])
    if call.query is not None or call.body is not None or call.parts:
        statuses.add(400)
    if call.query is not None or call.parts:
        statuses.add(414)
    if call.body is not None:
        statuses |= {413, 415}
    return statuses
