"""Version of the product: the one source for packages and metrics. Pure.

The API documents have their own: `VERSION` in `gateway.documents.openapi`.
"""

VERSION = "0.2.0"
