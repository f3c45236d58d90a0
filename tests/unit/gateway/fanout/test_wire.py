"""WebSocket frames as the server sends them, read back with a reader written from RFC 6455, 5.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.wire import text_frame


def read(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the first byte, the payload, and the rest. Refuse masked frames and non-minimal lengths."""
    first, second = data[0], data[1]
    assert not second & 0x80, "a server's frame is unmasked"
    size, header = second, 2
    if size == 126:
        size, header = int.from_bytes(data[2:4], "big"), 4
        assert size > 125
    elif size == 127:
        size, header = int.from_bytes(data[2:10], "big"), 10
        assert size > 0xFFFF
    return first, data[header : header + size], data[header + size :]


@pytest.mark.parametrize(
    ("size", "header"), [(0, 2), (1, 2), (125, 2), (126, 4), (127, 4), (65_535, 4), (65_536, 10), (200_000, 10)]
)
def test_frame_uses_the_shortest_header(size: int, header: int) -> None:
    payload = b"x" * size
    framed = text_frame(payload)
    assert len(framed) == header + size
    assert read(framed) == (0x81, payload, b"")


def test_frame_matches_the_rfc_example() -> None:
    assert text_frame(b"Hello") == bytes((0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F))


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_joined_frames_can_be_separated(payloads: list[bytes]) -> None:
    rest = b"".join(map(text_frame, payloads))
    found = []
    while rest:
        first, payload, rest = read(rest)
        assert first == 0x81  # FIN and text: every message is one frame
        found.append(payload)
    assert found == payloads
