"""What schemathesis must know of this API that a schema cannot say. It is loaded by schemathesis itself."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """JSON Schema takes 5.0 for an integer; this API, as most clients, writes integers as integers."""
    return _plain(body)


@schemathesis.hook
def filter_query(context: Any, query: Any) -> bool:
    """An empty parameter counts as absent, whatever its schema: neither a right value nor a wrong one."""
    return not isinstance(query, dict) or not any(map(_is_empty, query.values()))


def _is_empty(value: Any) -> bool:
    """Whether nothing of it stands behind the `=`."""
    match value:
        case dict():
            return all(map(_is_empty, value.values()))
        case list():
            return all(map(_is_empty, value))
        case _:
            return value is None or value == ""


def _plain(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
