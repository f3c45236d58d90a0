"""The base of every record on the wire. Pure."""

import msgspec


class WireStruct(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An immutable record: camelCase on the wire, snake_case here; unknown fields are ignored."""
