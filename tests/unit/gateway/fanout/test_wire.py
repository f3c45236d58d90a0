"""WebSocket frames as the server sends them, read back with a reader written from RFC 6455, 5.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.wire import sent_at_ms, text_frame
from shared.ids import Prefix, made_at_ms, new_id
from shared.protocol.server_frames import ChatMessageData, UserProfile, frame


def read(data: bytes) -> tuple[int, bytes, bytes]:
    """First byte, payload, and what follows the frame. Refuses masked frames and lengths longer than need be."""
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
def test_the_shortest_header_that_holds_the_length_is_used(size: int, header: int) -> None:
    payload = b"x" * size
    framed = text_frame(payload)
    assert len(framed) == header + size
    assert read(framed) == (0x81, payload, b"")


def test_the_example_of_the_rfc() -> None:
    assert text_frame(b"Hello") == bytes((0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F))


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_joined_frames_come_apart_again(payloads: list[bytes]) -> None:
    rest = b"".join(map(text_frame, payloads))
    found = []
    while rest:
        first, payload, rest = read(rest)
        assert first == 0x81  # FIN and text: every message is whole
        found.append(payload)
    assert found == payloads


def chat_message(message_id: str, text: str) -> bytes:
    data = ChatMessageData(
        chatroom_id="room_1",
        message_id=message_id,
        user_id="u",
        message=text,
        timestamp="2026-11-24T12:00:00.000Z",
        seq=1,
        client_message_id=None,
        user=UserProfile(),
    )
    return text_frame(frame("chat:message", data))


@pytest.mark.parametrize("text", ["hello", '"messageId":"msg_01JAR3NDEKTSV4RRFFQ69G5FAV"', "ü" * 40_000])
def test_a_message_tells_when_it_was_sent(text: str) -> None:
    message_id = new_id(Prefix.MESSAGE)
    joined = text_frame(b'{"type":"member:joined"}')
    assert sent_at_ms(joined + chat_message(message_id, text)) == made_at_ms(message_id)


@pytest.mark.parametrize("data", [b"", text_frame(b'{"type":"pong"}'), chat_message("m", "x"), b'"messageId":"'])
def test_another_frame_tells_no_time(data: bytes) -> None:
    assert sent_at_ms(data) is None
