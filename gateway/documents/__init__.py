"""The API described for machines and people: OpenAPI for REST, AsyncAPI for the WebSocket and the events.

Both are made of the types that the code itself uses; `make docs` writes them to `docs/`, and every gateway serves them.
"""

from gateway.documents.asyncapi import asyncapi
from gateway.documents.openapi import openapi

DOCUMENTS = {"openapi.json": openapi, "asyncapi.json": asyncapi}
