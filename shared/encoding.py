"""The one JSON encoder: orjson, and structs under their wire names."""

from typing import Any

import msgspec
import orjson


def to_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON without line breaks. Raises TypeError for a value that JSON cannot represent."""
    return orjson.dumps(value, default=_default, option=orjson.OPT_NON_STR_KEYS)


def _default(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return orjson.Fragment(bytes(value))
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, builtin_types=(msgspec.Raw,))
    raise TypeError(f"{type(value).__name__} is not JSON")
