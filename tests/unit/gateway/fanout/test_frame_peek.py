"""The looks inside a frame: they find fields of our own encoder, for any text of a user."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from gateway.fanout.frame_peek import (
    PeekedMessage,
    marks_staleness,
    message_of,
    read_mark,
    sent_at_ms,
    user_who_left,
)
from gateway.fanout.wire import text_frame
from shared.ids import Prefix, made_at_ms, new_id
from shared.protocol.server_frames import ChatMessageData, MemberLeftData, ReadMark, UserProfile, frame
from shared.times import to_iso


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


@given(st.text(min_size=1, max_size=20), st.text(max_size=50), st.lists(st.text(min_size=1), max_size=2), st.booleans())
def test_message_is_read_whatever_its_author_and_text(
    user_id: str, text: str, mentions: list[str], everybody: bool
) -> None:
    data = ChatMessageData(
        chatroom_id="room_1",
        message_id="msg_1",
        user_id=user_id,
        message=f'{text},"mentions":["no"],"mentionRoom":true","seq":9,"rev":9',
        timestamp=to_iso(5),
        seq=7,
        rev=12,
        client_message_id='","seq":1,"rev":2',
        user=UserProfile(first_name=text),
        mentions=tuple(mentions) or UNSET,
        mention_room=everybody or UNSET,
    )
    found = message_of(frame("chat:message", data))
    assert found == PeekedMessage(user_id, to_iso(5).encode(), 7, tuple(mentions), everybody)


def test_leaver_and_read_mark_are_read_from_other_frames() -> None:
    left = frame("member:left", MemberLeftData(chatroom_id="room_1", user_id='a,"b', member_count=1))
    mark = ReadMark(chatroom_id="room_1", user_id="ann", seq=3)
    read = frame("chat:read", mark)
    assert (user_who_left(left), user_who_left(read)) == ('a,"b', None)
    assert (read_mark(read), read_mark(left), message_of(left)) == (mark, None, None)
