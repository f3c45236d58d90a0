"""Client frames and server frames. The frames below are copied from the published documentation."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.encoding import to_json
from shared.errors import Detail, ErrorCode, Refusal
from shared.protocol.client_frames import (
    Auth,
    ChatDirect,
    ChatRead,
    ChatroomTarget,
    ChatSend,
    ChatTyping,
    CommunityTarget,
    FrameRefused,
    Incoming,
    MarketTarget,
    NotificationsTarget,
    Ping,
    PresenceGet,
    Request,
    Subscribe,
    Target,
    Unsubscribe,
    channel_name,
    parse,
    parse_subscription,
)
from shared.protocol.server_frames import (
    AuthOkData,
    ChatMessageData,
    ChatroomSubscribedData,
    PriceData,
    UserProfile,
    error_frame,
    frame,
    pong_frame,
)
from shared.times import from_iso

TARGETS: list[tuple[dict[str, Any], Target]] = [
    # api-reference, «Subscribe to Events» and the RealtimeClient's usage
    ({"channel": "chatroom", "chatroomId": "room_123"}, ChatroomTarget("room_123")),
    ({"channel": "notifications", "userId": "user_456"}, NotificationsTarget("user_456")),
    (
        {"channel": "market", "symbols": ["EUR/USD", "GBP/JPY", "XAU/USD"]},
        MarketTarget(["EUR/USD", "GBP/JPY", "XAU/USD"], 10.0),
    ),
    ({"channel": "market", "symbols": ["EUR/USD", "GBP/JPY"]}, MarketTarget(["EUR/USD", "GBP/JPY"], 10.0)),
    # protocol, «WebSocket»
    ({"channel": "chatroom", "chatroomId": "room_123", "since": 41}, ChatroomTarget("room_123", 41)),
    ({"channel": "chatroom", "chatroomId": "room_123", "since": 0}, ChatroomTarget("room_123", 0)),
    ({"channel": "notifications"}, NotificationsTarget()),
    ({"channel": "notifications", "since": 7}, NotificationsTarget(None, 7)),
    ({"channel": "market", "symbols": ["EUR/USD"], "maxRate": 1}, MarketTarget(["EUR/USD"], 1.0)),
    ({"channel": "market", "symbols": ["EUR/USD"], "maxRate": 50}, MarketTarget(["EUR/USD"], 50.0)),
    ({"channel": "community", "communityId": "community_789"}, CommunityTarget("community_789")),
]

REQUESTS: list[tuple[dict[str, Any], Request]] = [
    ({"type": "auth", "token": "your-jwt-token"}, Auth("your-jwt-token")),
    (
        {"type": "chat:send", "chatroomId": "room_123", "message": "Hello everyone!"},
        ChatSend(chatroom_id="room_123", message="Hello everyone!"),
    ),
    (
        {"type": "chat:send", "chatroomId": "room_123", "message": "hi", "clientMessageId": "c-1"},
        ChatSend(chatroom_id="room_123", message="hi", client_message_id="c-1"),
    ),
    ({"type": "chat:direct", "userId": "user_9", "message": "psst"}, ChatDirect(user_id="user_9", message="psst")),
    (
        {"type": "chat:direct", "userId": "user_9", "message": "psst", "clientMessageId": "c-2"},
        ChatDirect(user_id="user_9", message="psst", client_message_id="c-2"),
    ),
    ({"type": "chat:typing", "chatroomId": "room_123", "isTyping": True}, ChatTyping("room_123", True)),
    ({"type": "chat:read", "chatroomId": "room_123", "seq": 12}, ChatRead("room_123", 12)),
    ({"type": "presence:get", "userIds": ["user_1", "user_2"]}, PresenceGet(["user_1", "user_2"])),
    ({"type": "ping"}, Ping()),
    *(({"type": "subscribe", **fields}, Subscribe(target)) for fields, target in TARGETS),
    *(({"type": "unsubscribe", **fields}, Unsubscribe(target)) for fields, target in TARGETS),
]


@pytest.mark.parametrize(("sent", "request_"), REQUESTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("id_", [None, "abc", 7, 1.5, "", 0, 2**63 - 1, -(2**63), 1e300])
def test_every_documented_frame_is_parsed(sent: dict[str, Any], request_: Request, id_: object) -> None:
    text = json.dumps(sent if id_ is None else {**sent, "id": id_})
    assert parse(text) == Incoming(sent["type"], request_, id_)  # type: ignore[arg-type]
    assert parse(text.encode()) == parse(text)


@pytest.mark.parametrize(("sent", "request_"), REQUESTS, ids=lambda value: type(value).__name__)
def test_unknown_frame_fields_are_ignored(sent: dict[str, Any], request_: Request) -> None:
    assert parse(json.dumps({**sent, "apiKey": "k", "x": [1, {"y": None}]})).request == request_


def refused(text: str | bytes) -> FrameRefused:
    with pytest.raises(FrameRefused) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        *("", "   ", "hello", "{", "[]", "5", "null", '"ping"', "{}", '{"type":5}', '{"type":null}', '{"id":"x"}'),
        *("[" * 100_000, '{"type":"ping"', '{"type":"ping"}{}', '{"type":"\\ud83d"}', "{'type':'ping'}"),
    ],
)
def test_invalid_frame_is_bad_frame(text: str) -> None:
    assert refused(text).code is ErrorCode.BAD_FRAME


@pytest.mark.parametrize("type_", [5, None, {"$ne": ""}, ["ping"]])
def test_bad_frame_keeps_readable_id(type_: object) -> None:
    refusal = refused(json.dumps({"type": type_, "id": "x"}))
    assert (refusal.code, refusal.id) == (ErrorCode.BAD_FRAME, "x")


@pytest.mark.parametrize("type_", ["", "Ping", "chat", "chat:forward", "auth:ok", "subscribe ", "x" * 10_000])
def test_unknown_type_is_named_and_id_kept(type_: str) -> None:
    refusal = refused(json.dumps({"type": type_, "id": 5}))
    assert (refusal.code, refusal.name, refusal.id) == (ErrorCode.UNKNOWN_TYPE, type_, 5)
    assert len(refusal.message) < 120


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"type": "auth"}, "token"),
        ({"type": "auth", "token": ""}, "token"),
        ({"type": "auth", "token": "t", "subscriptions": {}}, "subscriptions"),
        ({"type": "subscribe"}, "channel"),
        ({"type": "subscribe", "channel": "weather"}, "channel"),
        ({"type": "subscribe", "channel": ["chatroom"]}, "channel"),
        ({"type": "subscribe", "channel": "chatroom"}, "chatroomId"),
        ({"type": "subscribe", "channel": "chatroom", "chatroomId": 5}, "chatroomId"),
        ({"type": "chat:send", "chatroomId": "r", "message": "m", "replyTo": 5}, "replyTo"),
        ({"type": "subscribe", "channel": "chatroom", "chatroomId": "r", "since": -1}, "since"),
        ({"type": "subscribe", "channel": "market"}, "symbols"),
        ({"type": "subscribe", "channel": "market", "symbols": []}, "symbols"),
        ({"type": "subscribe", "channel": "market", "symbols": "EUR/USD"}, "symbols"),
        ({"type": "subscribe", "channel": "market", "symbols": [""] * 1001}, "symbols"),
        ({"type": "subscribe", "channel": "market", "symbols": [7]}, "symbols[0]"),
        ({"type": "subscribe", "channel": "market", "symbols": ["E"], "maxRate": 0.5}, "maxRate"),
        ({"type": "subscribe", "channel": "market", "symbols": ["E"], "maxRate": 51}, "maxRate"),
        ({"type": "subscribe", "channel": "community"}, "communityId"),
        ({"type": "unsubscribe", "channel": "chatroom"}, "chatroomId"),
        ({"type": "chat:send", "message": "m"}, "chatroomId"),
        ({"type": "chat:send", "chatroomId": "r"}, "message"),
        ({"type": "chat:send", "chatroomId": "r", "message": ""}, "message"),
        ({"type": "chat:send", "chatroomId": "r", "message": " \n"}, "message"),
        ({"type": "chat:send", "chatroomId": "r", "message": "m", "clientMessageId": ""}, "clientMessageId"),
        ({"type": "chat:send", "chatroomId": "r", "message": "m", "clientMessageId": "x" * 129}, "clientMessageId"),
        ({"type": "chat:direct", "message": "m"}, "userId"),
        ({"type": "chat:typing", "chatroomId": "r"}, "isTyping"),
        ({"type": "chat:typing", "chatroomId": "r", "isTyping": 1}, "isTyping"),
        ({"type": "chat:read", "chatroomId": "r", "seq": "1"}, "seq"),
        ({"type": "presence:get", "userIds": []}, "userIds"),
        ({"type": "presence:get", "userIds": ["u"] * 101}, "userIds"),
        ({"type": "presence:get", "userIds": ["u", "a\tb"]}, "userIds[1]"),
    ],
)
def test_wrong_field_is_named_and_id_kept(sent: dict[str, Any], field: str) -> None:
    refusal = refused(json.dumps({**sent, "id": "q"}))
    assert (refusal.code, refusal.name, refusal.id) == (ErrorCode.VALIDATION, sent["type"], "q")
    assert [detail.field for detail in refusal.details] == [field]


NO_IDS = ["", "a b", "a/b", "a\tb", "é", "x" * 129]


@pytest.mark.parametrize("text", NO_IDS)
@pytest.mark.parametrize(
    ("field", "what", "sent"),
    [
        ("chatroomId", "room", {"type": "subscribe", "channel": "chatroom"}),
        ("chatroomId", "room", {"type": "chat:send", "message": "m"}),
        ("replyTo", "message", {"type": "chat:send", "chatroomId": "r", "message": "m"}),
        ("replyTo", "message", {"type": "chat:direct", "userId": "u", "message": "m"}),
        ("messageId", "message", {"type": "chat:edit", "chatroomId": "r", "message": "m"}),
        ("messageId", "message", {"type": "chat:delete", "chatroomId": "r"}),
        ("messageId", "message", {"type": "chat:react", "chatroomId": "r", "emoji": "x"}),
    ],
)
def test_text_that_is_no_id_names_nothing(field: str, what: str, sent: dict[str, Any], text: str) -> None:
    refusal = refused(json.dumps({**sent, field: text, "id": "q"}))
    assert (refusal.code, refusal.message, refusal.id) == (ErrorCode.NOT_FOUND, f"no such {what}", "q")
    assert refused(json.dumps({**sent, field: 5})).code is ErrorCode.VALIDATION


@pytest.mark.parametrize("id_", ["true", "[]", "{}", "1e400", str(2**63), str(-(2**63) - 1), str(10**40)])
def test_id_that_cannot_be_echoed_is_refused(id_: str) -> None:
    refusal = refused(f'{{"type":"ping","id":{id_}}}')
    assert (refusal.code, refusal.id) == (ErrorCode.VALIDATION, None)
    assert refusal.details[0].field == "id"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
types = st.sampled_from(sorted({sent["type"] for sent, _ in REQUESTS}))
names = ["type", "id", "token", "subscriptions", "channel", "chatroomId", "userId", "symbols", "maxRate", "since"]
names += ["communityId", "message", "clientMessageId", "isTyping", "seq", "userIds"]
channels = st.sampled_from(["chatroom", "notifications", "market", "community"])
nearly_frames = st.builds(
    lambda fields, type_, channel: {"channel": channel, **fields, "type": type_},
    st.dictionaries(st.sampled_from(names), json_values | st.sampled_from(["room_1", ["EUR/USD"], 5, True])),
    types,
    channels,
)


def parse_and_answer(text: str | bytes) -> None:
    """Parse anything, and make the server's answer."""
    try:
        incoming = parse(text)
    except FrameRefused as refusal:
        answer = json.loads(error_frame(refusal, refusal.name, refusal.id))
        assert answer["data"]["code"] in {"BAD_FRAME", "UNKNOWN_TYPE", "VALIDATION"}
        assert answer.get("id") == refusal.id
    else:
        answer = json.loads(pong_frame(incoming.id))
        assert answer.get("id") == incoming.id


@given(st.text())
def test_any_text_is_a_frame_or_refused(text: str) -> None:
    parse_and_answer(text)


@given(st.binary())
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    parse_and_answer(data)


@given(json_values | nearly_frames)
def test_any_json_is_a_frame_or_refused(value: object) -> None:
    parse_and_answer(json.dumps(value))


@given(nearly_frames)
def test_any_entry_of_subscriptions_is_a_subscription_or_refused(value: object) -> None:
    try:
        incoming = parse_subscription(msgspec.Raw(json.dumps(value).encode()))
    except FrameRefused as refusal:
        assert refusal.name == "subscribe"
        error_frame(refusal, refusal.name, refusal.id)
    else:
        assert isinstance(incoming.request, Subscribe)


@pytest.mark.parametrize(("fields", "target"), TARGETS)
@pytest.mark.parametrize("type_", [{}, {"type": "subscribe"}])
def test_subscription_entry_is_subscribe_frame(fields: dict[str, Any], target: Target, type_: dict[str, str]) -> None:
    auth = parse(json.dumps({"type": "auth", "token": "t", "subscriptions": [{**type_, **fields, "id": 3}]})).request
    assert isinstance(auth, Auth)
    assert parse_subscription(auth.subscriptions[0]) == Incoming("subscribe", Subscribe(target), 3)


@pytest.mark.parametrize("entry", ["5", "null", "[]", '{"type":"unsubscribe","channel":"notifications"}', "{}"])
def test_other_subscription_entries_are_refused(entry: str) -> None:
    with pytest.raises(FrameRefused) as caught:
        parse_subscription(msgspec.Raw(entry.encode()))
    assert caught.value.code is ErrorCode.VALIDATION


@pytest.mark.parametrize(("fields", "target"), TARGETS)
def test_target_has_channel_name(fields: dict[str, Any], target: Target) -> None:
    assert channel_name(target) == fields["channel"]


# Server frames ------------------------------------------------------------------------------------------------------


def test_chat_message_frame_matches_documentation() -> None:
    data = ChatMessageData(
        chatroom_id="room_123",
        message_id="msg_790",
        user_id="user_456",
        message="EUR/USD breaking resistance!",
        timestamp="2025-10-21T12:00:00.000Z",
        seq=5,
        rev=6,
        client_message_id=None,
        user=UserProfile(first_name="John", last_name="Doe", avatar="https://..."),
    )
    assert json.loads(frame("chat:message", data)) == {
        "type": "chat:message",
        "data": {
            "chatroomId": "room_123",
            "messageId": "msg_790",
            "userId": "user_456",
            "message": "EUR/USD breaking resistance!",
            "timestamp": "2025-10-21T12:00:00.000Z",
            "seq": 5,
            "rev": 6,
            "clientMessageId": None,
            "user": {"firstName": "John", "lastName": "Doe", "avatar": "https://..."},
        },
    }


def test_price_frame_matches_documentation_without_missing_fields() -> None:
    data = PriceData(
        symbol="EUR/USD", price=1.0875, change=0.0025, change_percent=0.23, timestamp="t", seq=9, bid=1.0874
    )
    assert json.loads(frame("market:price", data))["data"] == {
        **{"symbol": "EUR/USD", "price": 1.0875, "change": 0.0025, "changePercent": 0.23},
        **{"timestamp": "t", "seq": 9, "bid": 1.0874},
    }


def test_auth_ok_and_subscribed_have_their_documented_fields() -> None:
    ok = AuthOkData(
        user_id="u",
        session_id="s",
        server_time="t",
        expires_at="e",
        heartbeat_interval=30000,
        connection_timeout=60000,
        max_message_bytes=65536,
    )
    assert json.loads(frame("auth:ok", ok, "a")) == {
        "type": "auth:ok",
        "id": "a",
        "data": {
            **{"userId": "u", "sessionId": "s", "serverTime": "t", "expiresAt": "e"},
            **{"heartbeatInterval": 30000, "connectionTimeout": 60000, "maxMessageBytes": 65536},
        },
    }
    room = ChatroomSubscribedData(chatroom_id="r", seq=4, rev=9, recovered=True, replayed=2, active_now=3)
    assert json.loads(to_json(room)) == {
        **{
            "channel": "chatroom",
            "chatroomId": "r",
            "seq": 4,
            "rev": 9,
            "recovered": True,
            "replayed": 2,
            "activeNow": 3,
        }
    }


@pytest.mark.parametrize("code", list(ErrorCode))
def test_error_frame_says_whether_to_retry(code: ErrorCode) -> None:
    retryable = code in {ErrorCode.RATE_LIMITED, ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL}
    assert json.loads(error_frame(Refusal(code, "why"), "chat:send", 4)) == {
        "type": "error",
        "id": 4,
        "data": {"code": code.value, "message": "why", "retryable": retryable, "request": "chat:send"},
    }


def test_error_frame_carries_delay_and_details() -> None:
    refusal = Refusal(ErrorCode.RATE_LIMITED, "slow", details=[Detail("f", "r")], retry_after_ms=1500)
    assert json.loads(error_frame(refusal)) == {
        "type": "error",
        "data": {
            **{"code": "RATE_LIMITED", "message": "slow", "retryable": True, "retryAfterMs": 1500},
            "details": [{"field": "f", "reason": "r"}],
        },
    }


def test_pong_has_server_time() -> None:
    pong = json.loads(pong_frame(7))
    assert (pong["type"], pong["id"], list(pong["data"])) == ("pong", 7, ["serverTime"])
    assert from_iso(pong["data"]["serverTime"]) > 1_700_000_000_000


@given(st.text())
def test_frame_is_one_line_without_tabs(text: str) -> None:
    try:
        data = frame("chat:message", {"message": text})
    except TypeError:
        assert any("\ud800" <= character <= "\udfff" for character in text)
        return
    assert not {b"\n", b"\r", b"\t"} & {bytes((byte,)) for byte in data}
    assert json.loads(data)["data"]["message"] == text
