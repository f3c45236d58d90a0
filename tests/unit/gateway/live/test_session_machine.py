"""A session against a model, under any sequence of frames, tokens and time."""

import json
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.auth.identity import Identity
from gateway.live.session import (
    ABUSE_FACTOR,
    BAD_FRAMES_MAX,
    Action,
    Answer,
    Authenticate,
    Close,
    Perform,
    Session,
)
from gateway.settings import GatewaySettings
from shared.bus.delivery import room_channel
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.client_frames import ChatroomTarget

RATE = 2
MAX_SUBSCRIPTIONS = 3
SETTINGS = GatewaySettings(
    amqp_url="amqp://unused",
    rate_limit_messages_per_minute=RATE,
    max_subscriptions=MAX_SUBSCRIPTIONS,
    auth_timeout_s=10.0,
    connection_timeout_s=60.0,
)
BEGAN_S = 1_000.0
ids = st.none() | st.text(max_size=5) | st.integers(-(2**63), 2**63 - 1)
rooms = st.sampled_from("abcde")
performed = st.sampled_from(
    [
        {"type": "chat:typing", "chatroomId": "r", "isTyping": True},
        {"type": "chat:read", "chatroomId": "r", "seq": 1},
        {"type": "presence:get", "userIds": ["u"]},
        {"type": "subscribe", "channel": "chatroom", "chatroomId": "r"},
    ]
)
refused_frames = st.sampled_from([{"type": "no:such"}, {"type": "chat:read", "chatroomId": "r"}, {"type": "subscribe"}])
nonsense = st.sampled_from(["", "{", "[]", "5", "{}", '{"type": 5}']) | st.binary(max_size=8).map(str)


class SessionMachine(RuleBasedStateMachine):
    """Times are seconds; the wall clock equals the monotonic one."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session("sess_1", SETTINGS, BEGAN_S)
        self.now_s = self.last_frame_s = self.window_s = BEGAN_S
        self.user: str | None = None
        self.expires_s = 0.0
        self.bad = self.sent = 0
        self.asked: set[str] = set()
        self.subscribed: set[str] = set()
        self.closed: int | None = None

    def is_open(self) -> bool:
        return self.closed is None

    def receive(self, frame: dict[str, Any] | str, id_: object = None) -> Action:
        """Send a frame. An answer must carry its id; a close ends the session."""
        if isinstance(frame, dict) and id_ is not None:
            frame = {**frame, "id": id_}
        action = self.session.receive(frame if isinstance(frame, str) else json.dumps(frame), self.now_s)
        self.last_frame_s = self.now_s
        if isinstance(action, Close):
            self.closed = action.code
        if isinstance(action, Answer | Close) and action.frame is not None:
            assert json.loads(action.frame).get("id") == id_
        return action

    def expect_unauthorized(self, action: Action) -> bool:
        """Return whether the session has no user; then the frame must have closed it."""
        if self.user is None:
            assert isinstance(action, Close)
            assert action.code == 4401
        return self.user is None

    @precondition(is_open)
    @rule(seconds=st.sampled_from([0.0, 0.5, 9.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        close = self.session.tick(self.now_s, round(self.now_s * 1000))
        is_late = self.user is None and self.now_s - BEGAN_S > SETTINGS.auth_timeout_s
        if is_late or self.now_s - self.last_frame_s > SETTINGS.connection_timeout_s:
            expected = 4408
        elif self.user is not None and self.expires_s <= self.now_s:
            expected = 4401
        else:
            assert close is None
            return
        assert close is not None
        self.closed = close.code
        assert close.code == expected

    @precondition(lambda self: not self.is_open())
    @rule()
    def is_over(self) -> None:
        """The shell sends nothing more into a closed session."""

    @precondition(is_open)
    @rule()
    def pings_below_the_protocol(self) -> None:
        assert self.session.frame_received(self.now_s) is None  # far below the limit of frames
        self.last_frame_s = self.now_s

    @precondition(is_open)
    @rule(id_=ids)
    def pings(self, id_: object) -> None:
        assert isinstance(self.receive({"type": "ping"}, id_), Answer)
        self.bad = 0

    @precondition(is_open)
    @rule(user=st.sampled_from(["ann", "bob"]), ttl_s=st.sampled_from([1.0, 100.0]), good=st.booleans(), id_=ids)
    def authenticates(self, user: str, ttl_s: float, good: bool, id_: Any) -> None:
        action = self.receive({"type": "auth", "token": "t"}, id_)
        self.bad = 0
        assert isinstance(action, Authenticate)
        assert action.id == id_
        if not good:
            self.closed = self.session.auth_failed(Refusal(ErrorCode.UNAUTHORIZED, "no"), "auth", id_).code
            assert self.closed == 4401
            return
        expires_s = self.now_s + ttl_s
        token = Identity(caller=Caller(user_id=user), expires_at_ms=round(expires_s * 1000), communities=None)
        close = self.session.authenticated(token, id_)
        if self.user in (None, user):
            assert close is None
            self.user, self.expires_s = user, expires_s
        else:
            assert close is not None
            assert close.code == 4403
            self.closed = close.code

    @precondition(is_open)
    @rule(frame=performed, id_=ids)
    def asks_for_something(self, frame: dict[str, Any], id_: object) -> None:
        action = self.receive(frame, id_)
        if not self.expect_unauthorized(action):
            assert isinstance(action, Perform)
            assert (action.incoming.name, action.incoming.id) == (frame["type"], id_)
            self.bad = 0

    @precondition(is_open)
    @rule(id_=ids, times=st.sampled_from([1, 1, RATE * ABUSE_FACTOR]))
    def sends_messages(self, id_: object, times: int) -> None:
        for _ in range(times):
            action = self.receive({"type": "chat:send", "chatroomId": "r", "message": "m"}, id_)
            if self.expect_unauthorized(action):
                return
            self.bad = 0
            if self.now_s - self.window_s > 60:
                self.window_s, self.sent = self.now_s, 0
            self.sent += 1
            if self.sent > RATE * ABUSE_FACTOR:
                assert self.closed == 4429
                return
            assert isinstance(action, Perform)

    @precondition(is_open)
    @rule(frame=refused_frames, id_=ids)
    def sends_what_is_wrong(self, frame: dict[str, Any], id_: object) -> None:
        action = self.receive(frame, id_)
        if not self.expect_unauthorized(action):
            assert isinstance(action, Answer)
            self.bad = 0

    @precondition(is_open)
    @rule(text=nonsense)
    def sends_nonsense(self, text: str) -> None:
        action = self.receive(text)
        if not self.expect_unauthorized(action):
            self.bad += 1
            assert isinstance(action, Close if self.bad == BAD_FRAMES_MAX else Answer)
            assert self.closed == (4400 if self.bad == BAD_FRAMES_MAX else None)

    @precondition(is_open)
    @rule(room=rooms)
    def subscribes(self, room: str) -> None:
        counted = self.asked | self.subscribed
        try:
            self.session.reserve(ChatroomTarget(room), room_channel(room))
        except Refusal as refusal:
            assert refusal.code is ErrorCode.TOO_MANY_SUBSCRIPTIONS
            assert room not in counted
            assert len(counted) == MAX_SUBSCRIPTIONS
        else:
            self.asked.add(room)

    @precondition(is_open)
    @rule(room=rooms, granted=st.booleans())
    def is_answered(self, room: str, granted: bool) -> None:
        if room in self.asked:
            self.asked.discard(room)
            self.session.release(room_channel(room))
            if granted:
                self.subscribed.add(room)
                self.session.subscriptions.add(room_channel(room))

    @precondition(is_open)
    @rule(room=rooms)
    def unsubscribes(self, room: str) -> None:
        self.subscribed.discard(room)
        self.session.subscriptions.discard(room_channel(room))

    @invariant()
    def nobody_but_the_first_user_is_in(self) -> None:
        assert (None if self.session.identity is None else self.session.identity.user_id) == self.user
        assert len(self.asked | self.subscribed) <= MAX_SUBSCRIPTIONS


TestSession = SessionMachine.TestCase
TestSession.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
