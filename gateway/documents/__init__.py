"""The API descriptions: OpenAPI for REST, AsyncAPI for the WebSocket and internal events.

Both are built from the types that the code uses. `make docs` writes them to `docs/`, and every gateway serves them.
Reading order: `schemas` (JSON schemas of structs), `examples` (example values), `openapi`, `asyncapi`, `routes`.
"""

from gateway.documents.asyncapi import asyncapi
from gateway.documents.openapi import openapi

DOCUMENTS = {"openapi.json": openapi, "asyncapi.json": asyncapi}
