"""The looks inside a frame: they find what our own encoder writes, whatever a user's text contains."""

import pytest

from gateway.fanout.frame_peek import marks_staleness, sent_at_ms
from gateway.fanout.wire import text_frame
from shared.ids import Prefix, made_at_ms, new_id
from shared.protocol.server_frames import ChatMessageData, UserProfile, frame


def chat_message(message_id: str, text: str) -> bytes:
    data = ChatMessageData(
        chatroom_id="room_1",
        message_id=message_id,
        user_id="u",
        message=text,
        timestamp="2026-11-24T12:00:00.000Z",
        seq=1,
        rev=1,
        client_message_id=None,
        user=UserProfile(),
    )
    return text_frame(frame("chat:message", data))


@pytest.mark.parametrize("text", ["hello", '"messageId":"msg_01JAR3NDEKTSV4RRFFQ69G5FAV"', "ü" * 40_000])
def test_send_time_is_read_from_the_message_id(text: str) -> None:
    message_id = new_id(Prefix.MESSAGE)
    joined = text_frame(b'{"type":"member:joined"}')
    assert sent_at_ms(joined + chat_message(message_id, text)) == made_at_ms(message_id)


@pytest.mark.parametrize("data", [b"", text_frame(b'{"type":"pong"}'), chat_message("m", "x"), b'"messageId":"'])
def test_frame_without_a_message_has_no_send_time(data: bytes) -> None:
    assert sent_at_ms(data) is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b'{"symbol":"EUR","stale":true}', True), (b'{"symbol":"EUR","stale":false}', True), (b'{"symbol":"EUR"}', False)],
)
def test_price_that_carries_the_stale_field_marks_staleness(data: bytes, expected: bool) -> None:
    assert marks_staleness(data) is expected
