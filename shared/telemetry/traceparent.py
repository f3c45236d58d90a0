"""W3C traceparents (https://www.w3.org/TR/trace-context/) that clients and publishers give. Pure."""

import re

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent_of(value: object) -> str | None:
    """Return a given traceparent, or None if it has another form: then a new trace begins."""
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None
