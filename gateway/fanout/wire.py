"""WebSocket frames as the server sends them (RFC 6455, 5.2): text, one frame a message, unmasked. Pure."""

import re
import zlib

from shared.ids import made_at_ms

_MESSAGE_ID = b'"messageId":"'
_ID_BYTES = 30
_ANY_MESSAGE_ID = re.compile(rb'"messageId":"(msg_[0-9A-Z]{26})"')

_TEXT = 0x81
_DEFLATED_TEXT = 0xC1  # RSV1 (RFC 7692, 6)
_SHORT_MAX = 125
_MEDIUM_MAX = 0xFFFF
DEFLATED_MIN_BYTES = 256  # below, what is saved is less than the packet's own headers
_LEVEL = 3
_TAIL = b"\x00\x00\xff\xff"  # left out on the wire (RFC 7692, 7.2.1)


def text_frame(payload: bytes) -> bytes:
    """`payload`, UTF-8, as a whole frame; made once and written to any number of sockets."""
    return _framed(_TEXT, payload)


def deflated_frame(frame: bytes) -> bytes:
    """A text frame compressed by itself, with nothing of the frames before it (RFC 7692, 7.1.1.1): so that it serves
    every socket. A short one, or one that would not become shorter, stays as it is."""
    payload = frame[_head_size(frame) :]
    if len(payload) < DEFLATED_MIN_BYTES:
        return frame
    deflating = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = (deflating.compress(payload) + deflating.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)
    return _framed(_DEFLATED_TEXT, packed) if len(packed) < len(payload) else frame


def _framed(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size <= _SHORT_MAX:
        return bytes((first, size)) + payload
    if size <= _MEDIUM_MAX:
        return bytes((first, 0x7E)) + size.to_bytes(2, "big") + payload
    return bytes((first, 0x7F)) + size.to_bytes(8, "big") + payload


def sent_at_ms(frames: bytes) -> int | None:
    """When the first `chat:message` of some frames was sent, which its id tells; None if there is none."""
    begins = frames.find(_MESSAGE_ID)
    if begins < 0:
        return None
    begins += len(_MESSAGE_ID)
    try:
        return made_at_ms(frames[begins : begins + _ID_BYTES].decode())
    except ValueError:
        return None


def message_ids(body: bytes) -> list[str]:
    """The ids of all `chat:message` frames in a body of delivery lines."""
    return [found.decode() for found in _ANY_MESSAGE_ID.findall(body)]


def _head_size(frame: bytes) -> int:
    return {0x7E: 4, 0x7F: 10}.get(frame[1], 2)
