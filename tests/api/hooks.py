"""Facts about this API that a schema cannot express. schemathesis loads this module."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Replace floats such as 5.0 by integers: JSON Schema accepts them as integers, this API does not."""
    return _plain(body)


@schemathesis.hook
def filter_query(context: Any, query: Any) -> bool:
    """Drop empty parameters, which count as absent and are neither valid nor invalid."""
    return not isinstance(query, dict) or not any(map(_is_empty, query.values()))


LISTS_BESIDE_IDS = {"/v1/chatrooms/unread", "/v1/chatrooms/{chatroomId}/messages/search"}


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Drop OPTIONS of lists in whose place an id may stand: `Allow` names the methods of both."""
    return case.method != "OPTIONS" or case.operation.path not in LISTS_BESIDE_IDS


def _is_empty(value: Any) -> bool:
    """Return whether nothing follows the `=`."""
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
