"""WebSocket frames as the server sends them (RFC 6455, 5.2): text, one frame a message, unmasked. Pure."""

import re

from shared.ids import made_at_ms

_MESSAGE_ID = b'"messageId":"'
_ID_BYTES = 30
_ANY_MESSAGE_ID = re.compile(rb'"messageId":"(msg_[0-9A-Z]{26})"')

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


def sent_at_ms(frame: bytes) -> int | None:
    """When the message of a `chat:message` frame was sent, which its id tells; None for another frame."""
    begins = frame.find(_MESSAGE_ID)
    if begins < 0:
        return None
    begins += len(_MESSAGE_ID)
    try:
        return made_at_ms(frame[begins : begins + _ID_BYTES].decode())
    except ValueError:
        return None


def message_ids(body: bytes) -> list[str]:
    """The ids of all `chat:message` frames in a body of delivery lines."""
    return [found.decode() for found in _ANY_MESSAGE_ID.findall(body)]
