"""The API descriptions: OpenAPI for REST, AsyncAPI for the WebSocket and internal events.

Everything is generated from the types in use. `make docs` writes both documents to `docs/` and the event types of the
JavaScript client beside that client. Read `asyncapi` and `openapi` first, then `schemas` (JSON schemas of structs),
`examples` and `typescript`. `routes` serves both documents on every gateway.
"""

from gateway.documents.asyncapi import asyncapi
from gateway.documents.openapi import openapi

DOCUMENTS = {"openapi.json": openapi, "asyncapi.json": asyncapi}
