"""Base of every record that crosses the wire. Pure."""

import msgspec


class WireStruct(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Immutable record: camelCase names on the wire, snake_case here; unknown fields are ignored."""
