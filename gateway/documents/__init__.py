"""The API descriptions: OpenAPI for REST, AsyncAPI for the WebSocket and internal events.

Everything is generated from the types in use. `make docs` writes both documents to `docs/` and the
event types of the JavaScript client beside that client; every gateway serves the two documents. Read `asyncapi` and
`openapi` first, then `schemas` (JSON schemas of structs), `examples` and `typescript`; `routes` lists REST calls.
"""

from gateway.documents.asyncapi import asyncapi
from gateway.documents.openapi import openapi

DOCUMENTS = {"openapi.json": openapi, "asyncapi.json": asyncapi}
