"""WebSocket frames as the server sends them (RFC 6455, 5.2): text, one frame a message, unmasked. Pure."""

_TEXT = 0x81
_SHORT_MAX = 125
_MEDIUM_MAX = 0xFFFF


def text_frame(payload: bytes) -> bytes:
    """`payload`, UTF-8, as a whole frame; made once and written to any number of sockets."""
    size = len(payload)
    if size <= _SHORT_MAX:
        return bytes((_TEXT, size)) + payload
    if size <= _MEDIUM_MAX:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
