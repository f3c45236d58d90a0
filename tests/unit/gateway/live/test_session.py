"""The protocol of one connection, row by row of the protocol's tables."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.identity import Identity
from gateway.live.session import FRAMES_PER_WINDOW_MAX, Action, Answer, Authenticate, Close, Perform, Session
from gateway.settings import GatewaySettings
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.client_frames import ChatroomTarget, CommunityTarget, MarketTarget, Subscribe

FAR_MS = 10**15
SETTINGS = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32)
SEND = {"type": "chat:send", "chatroomId": "room_1", "message": "hi"}
KNOWN_FRAMES: list[dict[str, Any]] = [
    SEND,
    {"type": "chat:direct", "userId": "user_2", "message": "hi"},
    {"type": "chat:typing", "chatroomId": "room_1", "isTyping": True},
    {"type": "chat:read", "chatroomId": "room_1", "seq": 1},
    {"type": "presence:get", "userIds": ["user_2"]},
    {"type": "subscribe", "channel": "chatroom", "chatroomId": "room_1"},
    {"type": "unsubscribe", "channel": "chatroom", "chatroomId": "room_1"},
]


def identity(user_id: str = "user_1", expires_at_ms: int = FAR_MS) -> Identity:
    return Identity(caller=Caller(user_id=user_id), expires_at_ms=expires_at_ms, communities=None)


def new_session(settings: GatewaySettings = SETTINGS) -> Session:
    return Session("sess_1", settings, now_s=100.0)


def open_session(settings: GatewaySettings = SETTINGS, expires_at_ms: int = FAR_MS) -> Session:
    session = new_session(settings)
    assert session.authenticated(identity(expires_at_ms=expires_at_ms)) is None
    return session


def receive(session: Session, frame: object, now_s: float = 100.0) -> Action:
    return session.receive(frame if isinstance(frame, str) else json.dumps(frame), now_s)


def said(action: Action | None) -> tuple[str, Any, dict[str, Any]]:
    """Return type, id and data of the frame that an action sends."""
    assert isinstance(action, Answer | Close)
    assert action.frame is not None
    frame = json.loads(action.frame)
    return frame["type"], frame.get("id"), frame["data"]


def closed(action: Action | None, code: int) -> Close:
    assert isinstance(action, Close)
    assert action.code == code
    return action


# Before auth --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", KNOWN_FRAMES, ids=lambda frame: str(frame["type"]))
def test_frame_before_auth_gets_unauthorized_and_4401(frame: dict[str, Any]) -> None:
    close = closed(receive(new_session(), {**frame, "id": 9}), 4401)
    kind, id_, data = said(close)
    assert (kind, id_, data["code"], data["request"]) == ("error", 9, "UNAUTHORIZED", frame["type"])


@pytest.mark.parametrize("text", ["", "nope", "[]", "{}", '{"type":"x"}', '{"type":"auth"}', '{"type":"ping","id":[]}'])
def test_malformed_frame_before_auth_gets_unauthorized_and_4401(text: str) -> None:
    assert said(closed(receive(new_session(), text), 4401))[2]["code"] == "UNAUTHORIZED"


def test_ping_before_auth_is_answered() -> None:
    assert said(receive(new_session(), {"type": "ping", "id": "p"}))[:2] == ("pong", "p")


def test_auth_requests_verification_of_the_token() -> None:
    action = receive(new_session(), {"type": "auth", "token": "t", "id": 1, "subscriptions": [{"channel": "market"}]})
    assert isinstance(action, Authenticate)
    assert (action.request.token, action.id, len(action.request.subscriptions)) == ("t", 1, 1)


@pytest.mark.parametrize("code", [ErrorCode.UNAUTHORIZED, ErrorCode.TOKEN_EXPIRED])
def test_refused_token_gets_its_reason_and_4401(code: ErrorCode) -> None:
    close = closed(new_session().auth_failed(Refusal(code, "why"), "auth", 3), 4401)
    assert said(close) == ("error", 3, {"code": code, "message": "why", "retryable": False, "request": "auth"})


# After auth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", KNOWN_FRAMES, ids=lambda frame: str(frame["type"]))
def test_frame_after_auth_is_performed(frame: dict[str, Any]) -> None:
    action = receive(open_session(), {**frame, "id": 2})
    assert isinstance(action, Perform)
    assert (action.incoming.name, action.incoming.id) == (frame["type"], 2)


def test_ping_is_answered_with_its_id() -> None:
    assert said(receive(open_session(), {"type": "ping", "id": 4}))[:2] == ("pong", 4)
    assert said(receive(open_session(), {"type": "ping"}))[:2] == ("pong", None)


def test_later_token_of_the_same_user_renews() -> None:
    session = open_session(expires_at_ms=1000)
    assert isinstance(receive(session, {"type": "auth", "token": "t2"}), Authenticate)
    assert session.authenticated(identity(expires_at_ms=5000)) is None
    assert session.tick(100.0, 1000) is None
    closed(session.tick(100.0, 5000), 4401)


def test_token_of_another_user_closes_with_4403_and_changes_nothing() -> None:
    session = open_session()
    close = closed(session.authenticated(identity("user_2")), 4403)
    assert said(close)[2]["code"] == "FORBIDDEN"
    assert session.identity == identity()


# Bad frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("nope", "BAD_FRAME"),
        ("{}", "BAD_FRAME"),
        ({"type": "dance", "id": 1}, "UNKNOWN_TYPE"),
        ({"type": "chat:send", "id": 1}, "VALIDATION"),
    ],
)
def test_invalid_frame_after_auth_gets_an_error_and_no_close(frame: object, code: str) -> None:
    action = receive(open_session(), frame)
    assert isinstance(action, Answer)
    kind, id_, data = said(action)
    assert (kind, data["code"], data["retryable"]) == ("error", code, False)
    assert id_ == (1 if isinstance(frame, dict) else None)


def test_tenth_bad_frame_in_a_row_closes_with_4400() -> None:
    session = open_session()
    for _ in range(9):
        assert isinstance(receive(session, "nope"), Answer)
    assert said(closed(receive(session, "nope"), 4400))[2]["code"] == "BAD_FRAME"


@pytest.mark.parametrize("good", [{"type": "ping"}, SEND, {"type": "dance"}, {"type": "chat:send"}])
def test_readable_frame_resets_the_count_of_bad_ones(good: object) -> None:
    session = open_session()
    for _ in range(3):
        for _ in range(9):
            assert isinstance(receive(session, "nope"), Answer)
        assert not isinstance(receive(session, good), Close)


# Time ---------------------------------------------------------------------------------------------------------------


def test_no_auth_in_time_closes_with_4408() -> None:
    session = new_session()
    assert session.tick(110.0, 0) is None
    receive(session, {"type": "ping"}, now_s=110.0)  # a ping does not count as auth
    closed(session.tick(110.01, 0), 4408)


def test_silence_closes_with_4408() -> None:
    session = open_session()
    assert session.tick(160.0, 0) is None
    closed(session.tick(160.01, 0), 4408)


@pytest.mark.parametrize("sign", ["frame", "bad frame", "pong"])
def test_any_sign_of_life_counts(sign: str) -> None:
    session = open_session()
    match sign:
        case "frame":
            receive(session, SEND, now_s=159.0)
        case "bad frame":
            receive(session, "nope", now_s=159.0)
        case _:
            assert session.frame_received(159.0) is None
    assert session.tick(219.0, 0) is None
    closed(session.tick(219.01, 0), 4408)


def test_expired_token_gets_token_expired_and_4401() -> None:
    session = open_session(expires_at_ms=5000)
    assert session.tick(100.0, 4999) is None
    assert said(closed(session.tick(100.0, 5000), 4401))[2]["code"] == "TOKEN_EXPIRED"


# Limits -------------------------------------------------------------------------------------------------------------


def rated(limit: int) -> Session:
    return open_session(
        GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32, rate_limit_messages_per_minute=limit)
    )


@pytest.mark.parametrize("frame", KNOWN_FRAMES[:2], ids=["chat:send", "chat:direct"])
def test_more_than_ten_times_the_rate_closes_with_4429(frame: dict[str, Any]) -> None:
    session = rated(2)
    for _ in range(20):
        assert isinstance(receive(session, frame), Perform)
    close = closed(receive(session, {**frame, "id": 8}), 4429)
    assert (said(close)[1], said(close)[2]["code"]) == (8, "RATE_LIMITED")


def test_rate_is_counted_over_the_sockets_of_a_user() -> None:
    first, second = rated(2), rated(2)
    second.share_rate(first)
    for number in range(20):
        assert isinstance(receive((first, second)[number % 2], SEND), Perform)
    closed(receive(second, SEND), 4429)
    closed(receive(first, SEND), 4429)


def test_flood_of_any_frames_closes_with_4429() -> None:
    session = open_session()
    for _ in range(FRAMES_PER_WINDOW_MAX):
        assert session.frame_received(100.0) is None
    assert said(closed(session.frame_received(100.0), 4429))[2]["code"] == "RATE_LIMITED"


def test_many_frames_every_minute_are_no_flood() -> None:
    session = open_session()
    for minute in range(3):
        for _ in range(FRAMES_PER_WINDOW_MAX):
            assert session.frame_received(100.0 + 61 * minute) is None


def test_ten_times_the_rate_every_minute_is_tolerated() -> None:
    session = rated(2)
    for minute in range(3):
        for _ in range(20):
            assert isinstance(receive(session, SEND, now_s=100.0 + minute * 60.5), Perform)


def test_other_frames_are_not_counted_as_messages() -> None:
    session = rated(1)
    for _ in range(50):
        for frame in KNOWN_FRAMES[2:]:
            assert isinstance(receive(session, frame), Perform)


def limited(**limits: int) -> Session:
    settings = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32, **limits)  # type: ignore[arg-type]
    return open_session(settings)


def refused(session: Session, target: Any, channel: str) -> ErrorCode:
    with pytest.raises(Refusal) as caught:
        session.reserve(target, channel)
    return caught.value.code


def test_one_subscription_too_many_is_refused() -> None:
    session = limited(max_subscriptions=2)
    session.subscriptions |= {"room:1", "community:1"}
    assert refused(session, ChatroomTarget("2"), "room:2") is ErrorCode.TOO_MANY_SUBSCRIPTIONS
    assert refused(session, CommunityTarget("2"), "community:2") is ErrorCode.TOO_MANY_SUBSCRIPTIONS
    session.reserve(ChatroomTarget("1"), "room:1")  # a renewal counts once
    session.release("room:1")
    session.subscriptions.discard("room:1")
    session.reserve(ChatroomTarget("2"), "room:2")


def test_one_symbol_too_many_is_refused() -> None:
    session = limited(max_symbols=3)
    session.symbols |= {"A": 1.0, "B": 1.0}
    session.reserve(MarketTarget(["A", "B", "C", "C"]), "")
    assert refused(session, MarketTarget(["C", "D"]), "") is ErrorCode.TOO_MANY_SUBSCRIPTIONS


def test_symbols_and_subscriptions_are_counted_apart() -> None:
    session = limited(max_symbols=1, max_subscriptions=1)
    session.symbols["A"] = 1.0
    session.reserve(ChatroomTarget("1"), "room:1")
    session.subscriptions.add("room:1")
    session.reserve(MarketTarget(["A"]), "")


# Anything -----------------------------------------------------------------------------------------------------------

texts = st.text() | st.sampled_from([*KNOWN_FRAMES, {"type": "ping"}, {"type": "auth", "token": "t"}]).map(json.dumps)


@given(st.lists(texts, max_size=30), st.booleans())
def test_any_text_is_answered_and_only_an_open_session_performs(sent: list[str], is_open: bool) -> None:
    session = open_session() if is_open else new_session()
    in_a_row = 0
    for text in sent:
        action = receive(session, text)
        if isinstance(action, Perform):
            assert is_open
        if isinstance(action, Answer) and said(action)[2].get("code") == "BAD_FRAME":
            in_a_row += 1
        elif not isinstance(action, Close):
            in_a_row = 0
        if isinstance(action, Close):
            assert action.code == (4400 if is_open else 4401)
            assert in_a_row == (9 if is_open else 0)
            return
        assert in_a_row < 10


def test_performed_request_is_the_sent_one() -> None:
    action = receive(open_session(), {"type": "subscribe", "channel": "chatroom", "chatroomId": "r", "since": 3})
    assert isinstance(action, Perform)
    assert action.incoming.request == Subscribe(ChatroomTarget("r", 3))


@pytest.mark.parametrize(
    ("named", "lost"),
    [(None, []), ({"gold", "silver"}, []), ({"gold", "iron"}, ["silver"]), (set(), ["gold", "silver"])],
)
def test_renewed_token_ends_communities_that_it_does_not_name(named: set[str] | None, lost: list[str]) -> None:
    session = open_session()
    session.subscriptions |= {"community:gold", "community:silver", "room:gold"}
    allowed = None if named is None else frozenset(named)
    assert session.authenticated(Identity(Caller(user_id="user_1"), FAR_MS, allowed)) is None
    assert session.revoked_communities() == lost


@given(
    st.lists(
        st.tuples(
            st.integers(0, 320).map(lambda eighths: eighths / 8),  # exact in seconds and in milliseconds
            st.sampled_from(["look", "ping", "auth"]),
            st.integers(1, 200),
        ),
        max_size=30,
    )
)
def test_ticks_before_due_time_can_be_skipped(steps: list[tuple[float, str, int]]) -> None:
    """A sweep skips a session whose `due_s` is ahead; a twin that is ticked every time closes no earlier."""
    looked_at, passed_over = new_session(), new_session()
    now_s = 100.0
    for later_s, what, lives_s in steps:
        now_s += later_s
        now_ms = round(now_s * 1000)
        if what == "auth":
            token = identity(expires_at_ms=now_ms + lives_s * 1000)
            for session in (looked_at, passed_over):
                session.authenticated(token)
        elif what == "ping":
            for session in (looked_at, passed_over):
                session.frame_received(now_s)
        close = looked_at.tick(now_s, now_ms)
        due = passed_over.due_s <= now_s
        assert (passed_over.tick(now_s, now_ms) if due else None) == close
        if close is not None:
            return
