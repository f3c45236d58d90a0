"""WebSocket frames as a server sends them (RFC 6455, 5.2): unfragmented and unmasked. Pure."""

import zlib

_TEXT = 0x81
_CLOSE = 0x88
_PONG = 0x8A
_DEFLATED_TEXT = 0xC1  # RSV1 (RFC 7692, 6)
_SHORT_MAX = 125
_MEDIUM_MAX = 0xFFFF
DEFLATED_MIN_BYTES = 256  # compressing a shorter frame saves less than the packet's headers
_LEVEL = 3
_TAIL = b"\x00\x00\xff\xff"  # omitted on the wire (RFC 7692, 7.2.1)


def text_frame_or_empty(payload: bytes) -> bytes:
    """Return `payload` as a complete frame, or b"" for an item that clients do not see."""
    return text_frame(payload) if payload else b""


def text_frame(payload: bytes) -> bytes:
    """Return a UTF-8 payload as a complete frame, to be written to any number of sockets."""
    return _framed(_TEXT, payload)


def pong(data: bytes) -> bytes:
    """Return the answer to a ping, which has at most 125 bytes of data."""
    return bytes((_PONG, len(data))) + data


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Return a close frame, with the reason cut to the 123 bytes that fit beside the code; empty without a code."""
    if code is None:
        return bytes((_CLOSE, 0))
    told = reason.encode()[: _SHORT_MAX - 2].decode(errors="ignore").encode()
    return _framed(_CLOSE, code.to_bytes(2, "big") + told)


def deflated_frame(frame: bytes) -> bytes:
    """Compress a text frame without context from earlier frames, so that the result suits every socket.

    See RFC 7692, 7.1.1.1. A short frame, or one that would not shrink, is returned unchanged.
    """
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


def _head_size(frame: bytes) -> int:
    return {0x7E: 4, 0x7F: 10}.get(frame[1], 2)
