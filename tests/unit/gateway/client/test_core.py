"""The Python client's pure core: by example, and against a model of the server under random interleavings."""

import json
import math
from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from realtime_client.actions import Drop, Emit, Fail, FetchToken, Open, Resolve, Send, TokenReason
from realtime_client.core import Core
from realtime_client.options import ClientOptions
from realtime_client.protocol import (
    CommunitySubscription,
    InboxSubscription,
    MarketSubscription,
    RoomSubscription,
    ServerClose,
    Subscription,
)
from realtime_client.requests import RequestFailed
from realtime_client.status import State

ROOM = RoomSubscription("room_1")
TIMES = {"serverTime": "2030-01-01T00:00:00.000Z", "expiresAt": "2030-01-02T00:00:00.000Z"}
WELCOME = {"userId": "u", "sessionId": "s", "heartbeatInterval": 30_000, "connectionTimeout": 60_000}


class Driver:
    """A core, a clock under the test's control, and a record of the core's actions."""

    def __init__(self, *, token: str | None = "token-1", chance: float = 0.5, **options: Any) -> None:
        self.core = Core(ClientOptions(**options), lambda: chance, token=token, can_refresh=token is None)
        self.now_s = 1000.0
        self.connection = 0
        self.drops = 0
        self.sent: list[dict[str, Any]] = []
        self.events: list[tuple[str, Any]] = []
        self.settled: dict[int, Any] = {}
        self.reasons: list[TokenReason] = []

    def record(self) -> None:
        """Record the pending actions of the core."""
        for action in self.core.take():
            match action:
                case Open(connection):
                    self.connection = connection
                case Send(text):
                    self.sent.append(json.loads(text))
                case Drop():
                    self.drops += 1
                case FetchToken(reason):
                    self.reasons.append(reason)
                case Emit(type_, data):
                    self.events.append((type_, data))
                case Resolve(id_, data):
                    self.settled[id_] = data
                case Fail(id_, error):
                    self.settled[id_] = error

    def pass_time(self, seconds: float) -> None:
        """Advance the clock and tick at each deadline of the core."""
        end_s = self.now_s + seconds
        for _ in range(10_000):
            deadline_s = self.core.deadline_s(self.now_s)
            if deadline_s > end_s:
                break
            self.now_s = max(self.now_s, deadline_s)
            self.core.tick(self.now_s)
            self.record()
        else:
            raise AssertionError("the core never stops asking for ticks")
        self.now_s = end_s

    def open(self, **welcome: Any) -> dict[str, Any]:
        """Open the link from idle or waiting. Return the auth frame."""
        if self.core.state is State.IDLE:
            self.core.link.connect(self.now_s)
        elif self.core.state is State.WAITING:
            self.core.link.wake(self.now_s)
        self.record()
        if self.core.state is State.CONNECTING and self.connection == 0:
            self.core.link.token_ready("token-1", self.now_s)
            self.record()
        self.core.link.opened(self.connection, self.now_s)
        self.record()
        auth = self.frames()[0]
        self.welcome(**welcome)
        return auth

    def welcome(self, **more: Any) -> None:
        self.receive({"type": "auth:ok", "id": "auth", "data": WELCOME | TIMES | {"maxMessageBytes": 65_536} | more})

    def receive(self, frame: dict[str, Any]) -> None:
        self.core.received(self.connection, json.dumps(frame), self.now_s)
        self.record()

    def cut(self, code: int = 1006, retry_after_s: float = 0.0) -> None:
        self.core.link.closed(self.connection, code, "", self.now_s, retry_after_s)
        self.record()

    def subscribe(self, target: Subscription = ROOM, **answer: Any) -> int:
        """Subscribe, and confirm the subscription if the link is open."""
        id_ = self.core.subscribe(target, self.now_s)
        self.record()
        if self.core.state is State.OPEN:
            request = self.frames()[0]
            self.receive({"type": "subscribed", "id": request["id"], "data": {**request, "seq": 0} | answer})
        return id_

    def send(self, text: str, room: str = "room_1") -> int:
        frame = {"type": "chat:send", "chatroomId": room, "message": text, "clientMessageId": f"c-{text}"}
        id_ = self.core.send_message(frame, f"room {room}", self.now_s)
        self.record()
        return id_

    def react(self, message_id: str, room: str = "room_1") -> int:
        frame = {"type": "chat:react", "chatroomId": room, "messageId": message_id, "emoji": "x", "remove": False}
        id_ = self.core.send_message(frame, f"room {room}", self.now_s)
        self.record()
        return id_

    def message(self, seq: int, room: str = "room_1") -> None:
        self.receive({"type": "chat:message", "data": {"chatroomId": room, "seq": seq}})

    def refuse(self, request: dict[str, Any], code: str, **more: Any) -> None:
        error = {"code": code, "message": code, "retryable": False, "request": request["type"]} | more
        self.receive({"type": "error", "id": request["id"], "data": error})

    def frames(self) -> list[dict[str, Any]]:
        """Return the frames sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def of(self, type_: str) -> list[Any]:
        return [data for name, data in self.events if name == type_]


def opened(**options: Any) -> Driver:
    driver = Driver(**options)
    driver.open()
    return driver


def code_of(outcome: Any) -> str:
    assert isinstance(outcome, RequestFailed)
    return outcome.code


# Link -----------------------------------------------------------------------------------------------------------------


def test_requests_wait_for_connection_and_auth_frame_carries_subscriptions() -> None:
    driver = Driver()
    driver.subscribe()
    driver.send("hello")
    auth = driver.open()
    assert [(entry["channel"], entry["chatroomId"]) for entry in auth["subscriptions"]] == [("chatroom", "room_1")]
    assert [frame["message"] for frame in driver.frames()] == ["hello"]


def test_backoff_doubles_up_to_maximum_with_jitter() -> None:
    for chance, expected in ((0.0, [0, 100, 200, 400, 500, 500]), (1.0, [100, 200, 400, 800, 1000, 1000])):
        driver = Driver(chance=chance, backoff_first_s=0.1, backoff_max_s=1.0)
        driver.core.link.connect(driver.now_s)
        for _ in expected:
            driver.record()
            driver.cut()
            driver.core.link.wake(driver.now_s)
        waits = [state["retryInMs"] for state in driver.of("state") if state["state"] == "waiting"]
        assert waits == expected


def test_unrecoverable_close_code_closes_client_and_fails_requests() -> None:
    for code in (ServerClose.UNSUPPORTED, ServerClose.TOO_BIG, ServerClose.BAD_FRAMES, ServerClose.FORBIDDEN):
        driver = opened()
        id_ = driver.send("hello")
        driver.cut(code)
        assert driver.core.state is State.CLOSED
        assert (code_of(driver.settled[id_]), driver.settled[id_].close_code) == ("CLOSED", code)
        assert driver.core.deadline_s(driver.now_s) == math.inf


def test_server_determines_reconnect_delay() -> None:
    driver = opened()
    driver.receive({"type": "server:drain", "data": {"reconnectAfterMs": 1234}})
    driver.cut(ServerClose.RESTARTING)
    assert driver.of("state")[-1]["retryInMs"] == 1234
    for code, retry_after_s, least_ms in ((ServerClose.RATE_ABUSE, 0, 10_000), (ServerClose.OVERLOADED, 7, 7_000)):
        driver = opened(chance=0.0)
        driver.cut(code, retry_after_s)
        assert driver.of("state")[-1]["retryInMs"] == least_ms


def test_token_is_renewed_before_expiry_and_refetched_three_times_after_refusals() -> None:
    driver = Driver(token=None)
    driver.open(expiresAt="2030-01-01T00:00:20.000Z")
    driver.pass_time(15.0)
    driver.core.link.token_ready("token-2", driver.now_s)
    driver.record()
    assert [(frame["type"], frame["token"]) for frame in driver.frames()] == [("auth", "token-2")]
    driver.welcome()
    for _ in range(4):
        driver.cut(ServerClose.UNAUTHORIZED)
        driver.pass_time(9.0)
        driver.core.link.token_ready("token-3", driver.now_s)
        driver.record()
    assert driver.reasons == [TokenReason.CONNECT, TokenReason.EXPIRING, *[TokenReason.REFUSED] * 3]
    assert driver.core.state is State.CLOSED


def test_refused_fixed_token_closes_client_until_replaced() -> None:
    driver = opened()
    driver.cut(ServerClose.UNAUTHORIZED)
    assert driver.core.state is State.CLOSED
    driver.core.link.token_ready("token-2", driver.now_s)
    driver.core.link.connect(driver.now_s)
    driver.record()
    driver.core.link.opened(driver.connection, driver.now_s)
    driver.record()
    assert driver.frames()[0]["token"] == "token-2"


def test_dead_link_is_detected_after_heartbeat_and_answer_timeout() -> None:
    driver = opened()
    driver.pass_time(39.9)
    assert driver.core.state is State.OPEN
    driver.pass_time(0.2)
    assert (driver.core.state, driver.drops) == (State.WAITING, 1)


# Subscriptions --------------------------------------------------------------------------------------------------------


def test_reconnect_restores_every_subscription_from_its_position() -> None:
    driver = opened()
    driver.subscribe(ROOM, seq=5)
    driver.subscribe(InboxSubscription(), seq=8)
    driver.subscribe(MarketSubscription(["A", "B", "C"], 5.0), symbols=["A", "B"], unknown=["C"])
    driver.subscribe(CommunitySubscription("c1"))
    for seq in (6, 7, 7):
        driver.message(seq)
    driver.receive({"type": "trade:created", "data": {"seq": 9}})
    driver.message(3, "direct")
    driver.cut()
    entries = [
        {name: value for name, value in entry.items() if name != "id"} for entry in driver.open()["subscriptions"]
    ]
    assert entries == [
        {"type": "subscribe", "channel": "community", "communityId": "c1"},
        {"type": "subscribe", "channel": "notifications", "since": 9},
        {"type": "subscribe", "channel": "chatroom", "chatroomId": "room_1", "since": 7},
        {"type": "subscribe", "channel": "chatroom", "chatroomId": "direct", "since": 3},
        {"type": "subscribe", "channel": "market", "symbols": ["A", "B"], "maxRate": 5.0},
    ]
    assert [message["seq"] for message in driver.of("chat:message")] == [6, 7, 3]
    assert driver.core.stats.repeats == 1


def test_gap_beyond_replay_is_reported_and_delivery_continues() -> None:
    driver = opened()
    driver.subscribe(ROOM, seq=5)
    driver.cut()
    (entry,) = driver.open()["subscriptions"]
    driver.receive({"type": "subscribed", "id": entry["id"], "data": {**entry, "seq": 5000, "recovered": False}})
    driver.message(5001)
    assert driver.of("missed") == [{"channel": "chatroom", "chatroomId": "room_1", "since": 5, "seq": 5000}]
    driver.message(5005)
    assert driver.of("missed")[1:] == [{"channel": "chatroom", "chatroomId": "room_1", "since": 5001, "seq": 5004}]


def test_retryable_rejection_is_retried_and_final_rejection_is_reported() -> None:
    driver = opened()
    driver.subscribe()
    driver.cut()
    driver.refuse(driver.open()["subscriptions"][0], "UNAVAILABLE", retryable=True)
    driver.pass_time(2.0)
    (again,) = driver.frames()
    driver.refuse(again, "NOT_FOUND")
    assert [(lost["chatroomId"], lost["code"]) for lost in driver.of("subscription:lost")] == [("room_1", "NOT_FOUND")]
    driver.cut()
    assert "subscriptions" not in driver.open()


def test_unsubscribed_channel_is_not_restored() -> None:
    driver = opened()
    driver.subscribe()
    id_ = driver.core.unsubscribe(ROOM, driver.now_s)
    driver.record()
    driver.message(1)  # still in flight
    fields = {"channel": "chatroom", "chatroomId": "room_1"}
    driver.receive({"type": "unsubscribed", "id": id_, "data": fields})
    assert (driver.of("chat:message"), driver.settled[id_]) == ([], fields)
    driver.cut()
    asked = driver.subscribe()
    driver.core.unsubscribe(ROOM, driver.now_s)
    driver.record()
    assert code_of(driver.settled[asked]) == "UNSUBSCRIBED"
    assert "subscriptions" not in driver.open()


def test_room_that_the_user_was_removed_from_is_not_restored() -> None:
    driver = opened()
    driver.subscribe()
    fields = {"channel": "chatroom", "chatroomId": "room_1", "reason": "removed"}
    driver.receive({"type": "unsubscribed", "data": fields})
    assert driver.of("unsubscribed") == [fields]
    driver.cut()
    assert "subscriptions" not in driver.open()


def test_direct_message_acked_after_reconnect_resumes_its_room() -> None:
    driver = opened()
    frame = {"type": "chat:direct", "userId": "u2", "message": "x", "clientMessageId": "c"}
    driver.core.send_message(frame, "user u2", driver.now_s)
    driver.cut()
    driver.open()
    (again,) = driver.frames()
    ack = {"chatroomId": "direct", "messageId": "m", "seq": 7, "clientMessageId": "c", "timestamp": "t"}
    driver.receive({"type": "chat:ack", "id": again["id"], "data": ack})
    (entry,) = driver.frames()
    assert (entry["type"], entry["chatroomId"], entry["since"]) == ("subscribe", "direct", 6)


# Requests -------------------------------------------------------------------------------------------------------------


def test_rate_limit_pauses_messages_and_keeps_their_order() -> None:
    driver = opened()
    driver.send("a")
    driver.send("b")
    driver.refuse(driver.frames()[0], "RATE_LIMITED", retryable=True, retryAfterMs=7000)
    driver.send("c", "room_2")
    driver.pass_time(6.9)
    assert driver.frames() == []
    driver.pass_time(0.2)
    assert [frame["message"] for frame in driver.frames()] == ["a", "c"]


def test_rate_limit_on_changes_holds_up_changes_alone() -> None:
    driver = opened()
    driver.react("m1")
    driver.refuse(driver.frames()[0], "RATE_LIMITED", retryable=True, retryAfterMs=7000)
    driver.react("m2")
    driver.react("m3", "room_2")
    driver.send("a")
    driver.send("b", "room_2")
    assert [frame["message"] for frame in driver.frames()] == ["a", "b"]
    driver.pass_time(6.9)
    assert driver.frames() == []
    driver.pass_time(0.2)
    assert [frame["messageId"] for frame in driver.frames()] == ["m1", "m3"]


def test_rate_limit_on_messages_holds_up_messages_alone() -> None:
    driver = opened()
    driver.send("a")
    driver.refuse(driver.frames()[0], "RATE_LIMITED", retryable=True, retryAfterMs=7000)
    driver.react("m1")
    driver.send("b", "room_2")
    assert [frame["type"] for frame in driver.frames()] == ["chat:react"]
    driver.pass_time(7.1)
    assert [frame["message"] for frame in driver.frames()] == ["a", "b"]


def test_wait_beyond_its_deadline_fails_a_message_and_holds_up_no_other() -> None:
    driver = Driver(request_timeout_s=120.0)
    driver.open()
    id_ = driver.send("to a stranger")
    driver.send("to a friend", "room_2")
    driver.refuse(driver.frames()[0], "RATE_LIMITED", retryable=True, retryAfterMs=3_600_000)
    failed = driver.settled[id_]
    assert (code_of(failed), failed.retryable, failed.retry_after_ms) == ("RATE_LIMITED", True, 3_600_000)
    driver.send("to another friend", "room_3")
    assert [frame["message"] for frame in driver.frames()] == ["to another friend"]


def test_rejected_message_fails_and_next_one_is_sent() -> None:
    driver = opened()
    id_ = driver.send("a")
    driver.send("b")
    driver.refuse(driver.frames()[0], "VALIDATION", details=[{"field": "message", "reason": "is bad"}])
    assert code_of(driver.settled[id_]) == "VALIDATION"
    assert [(detail.field, detail.reason) for detail in driver.settled[id_].details] == [("message", "is bad")]
    assert [frame["message"] for frame in driver.frames()] == ["b"]


def test_pending_requests_are_bounded_in_time_number_and_size() -> None:
    driver = Driver(pending_max=2, request_timeout_s=3.0)
    large = driver.send("é" * 40_000)
    first, _, over = (driver.send(text) for text in "abc")
    driver.pass_time(3.0)
    outcomes = [code_of(driver.settled[id_]) for id_ in (large, first, over)]
    assert outcomes == ["TOO_LARGE", "TIMEOUT", "QUEUE_FULL"]


def test_malformed_frames_are_ignored() -> None:
    driver = opened()
    driver.subscribe()
    for text in (
        "",
        "x",
        "null",
        "[]",
        "{}",
        '{"type":1}',
        '{"type":"chat:message"}',
        '{"type":"x:y","data":{"seq":"1"}}',
    ):
        driver.core.received(driver.connection, text, driver.now_s)
    driver.receive({"type": "chat:ack", "id": 9999, "data": {}})
    assert driver.core.state is State.OPEN


# Against a model ------------------------------------------------------------------------------------------------------


class Server:
    """A room on the server, and the frames in flight in either direction."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.known: dict[str, int] = {}
        self.listening = False
        self.incoming: deque[dict[str, Any]] = deque()
        self.outgoing: deque[dict[str, Any]] = deque()

    def write(self, client_message_id: str) -> int:
        """Store a message once. Deliver it to a subscriber, a second time if it is already stored."""
        if client_message_id not in self.known:
            self.log.append(client_message_id)
            self.known[client_message_id] = len(self.log)
        if self.listening:
            self.outgoing.append(self._frame(self.known[client_message_id]))
        return self.known[client_message_id]

    def handle(self, *, is_busy: bool) -> None:
        """Handle one frame of the client. A busy server rejects messages as retryable."""
        frame = self.incoming.popleft()
        match frame["type"]:
            case "chat:send" if is_busy:
                error = {"code": "UNAVAILABLE", "message": "busy", "retryable": True}
                self.outgoing.append({"type": "error", "id": frame["id"], "data": error})
            case "auth":
                data = WELCOME | TIMES | {"maxMessageBytes": 65_536}
                self.outgoing.append({"type": "auth:ok", "id": frame["id"], "data": data})
                for entry in frame.get("subscriptions", ()):
                    self.subscribe(entry)
            case "subscribe":
                self.subscribe(frame)
            case "chat:send":
                seq = self.write(frame["clientMessageId"])
                self.outgoing.append({"type": "chat:ack", "id": frame["id"], "data": {"seq": seq}})
            case "ping":
                self.outgoing.append({"type": "pong", "id": frame["id"], "data": {}})

    def subscribe(self, entry: dict[str, Any]) -> None:
        since = entry.get("since")
        missed = [] if since is None else [self._frame(seq) for seq in range(since + 1, len(self.log) + 1)]
        data = {"channel": "chatroom", "seq": len(self.log), "recovered": since is not None, "replayed": len(missed)}
        self.outgoing += [{"type": "subscribed", "id": entry["id"], "data": data}, *missed]
        self.listening = True

    def cut(self) -> None:
        self.listening = False
        self.incoming.clear()
        self.outgoing.clear()

    def _frame(self, seq: int) -> dict[str, Any]:
        data = {"chatroomId": "room_1", "seq": seq, "clientMessageId": self.log[seq - 1]}
        return {"type": "chat:message", "data": data}


class World(Driver):
    """A client and a server whose frames move one by one under the test's control."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.is_up = False
        self.own: list[tuple[int, str]] = []
        self.core.link.connect(self.now_s)
        self.core.subscribe(RoomSubscription("room_1", 0), self.now_s)
        self.record()

    def step(self, what: str) -> None:
        if what == "flow":
            self.flow()
        elif what == "send":
            text = f"own-{len(self.own)}"
            self.own.append((self.send(text), f"c-{text}"))
        elif what == "other":
            self.server.write(f"other-{len(self.server.log)}")
        elif what == "cut":
            self.server.cut()
            self.cut()
            self.is_up = False
        elif what == "time":
            self.pass_time(1.0)
        elif what == "connect":
            self._connect()
        elif what in ("up", "refuse") and self.server.incoming:
            self.server.handle(is_busy=what == "refuse")
        elif what == "down" and self.server.outgoing and self.is_up:
            self.receive(self.server.outgoing.popleft())
        self.server.incoming += self.frames() if self.is_up else []

    def _connect(self) -> None:
        if self.core.state is State.CONNECTING and not self.is_up:
            self.is_up = True
            self.core.link.opened(self.connection, self.now_s)
            self.record()

    def flow(self) -> None:
        """Let a second pass with an intact link."""
        for what in ("time", "connect"):
            self.step(what)
        while self.is_up and (self.server.incoming or self.server.outgoing):
            for what in ("up", "down"):
                self.step(what)


STEPS = st.lists(
    st.sampled_from(["send", "send", "other", "cut", "flow", "refuse", "up", "up", "down", "down"]), max_size=60
)


@given(STEPS)
def test_no_interleaving_loses_repeats_or_reorders_messages(steps: list[str]) -> None:
    world = World()
    for what in steps:
        world.step(what)
        if world.drops:  # the client has dropped the link by itself
            world.drops, world.is_up = 0, False
            world.server.cut()
    for _ in range(200):
        world.flow()
    log = world.server.log
    seen = world.of("chat:message")
    assert [message["seq"] for message in seen] == list(range(1, len(log) + 1))
    assert [message["clientMessageId"] for message in seen] == log
    assert [name for name in log if name.startswith("c-own")] == [name for _, name in world.own]
    assert [world.settled[id_]["seq"] for id_, _ in world.own] == [world.server.known[name] for _, name in world.own]
    assert world.of("missed") == []


# Changes of messages --------------------------------------------------------------------------------------------------


def change(driver: Driver, type_: str, rev: int) -> None:
    driver.receive({"type": type_, "data": {"chatroomId": "room_1", "rev": rev, "messageId": "m"}})


def spoken(driver: Driver, seq: int, rev: int) -> None:
    driver.receive({"type": "chat:message", "data": {"chatroomId": "room_1", "seq": seq, "rev": rev}})


def test_room_is_resumed_after_the_last_change_and_repeats_are_dropped() -> None:
    driver = opened()
    driver.subscribe(seq=4, rev=10)
    spoken(driver, 5, 11)
    change(driver, "chat:updated", 12)
    driver.cut()
    [entry] = driver.open()["subscriptions"]
    assert (entry["sinceRev"], "since" in entry) == (12, False)
    driver.receive({"type": "subscribed", "id": entry["id"], "data": {"seq": 6, "rev": 14, "recovered": True}})
    change(driver, "chat:deleted", 13)
    driver.cut()  # amid the replay
    [entry] = driver.open()["subscriptions"]
    assert entry["sinceRev"] == 13
    driver.receive({"type": "subscribed", "id": entry["id"], "data": {"seq": 6, "rev": 14, "recovered": True}})
    change(driver, "chat:deleted", 13)
    spoken(driver, 6, 14)
    assert [data["rev"] for data in driver.of("chat:deleted")] == [13]
    assert [data["seq"] for data in driver.of("chat:message")] == [5, 6]


def test_rev_counts_only_once_all_messages_before_it_have_arrived() -> None:
    driver = opened()
    driver.subscribe(RoomSubscription("room_1", since=3), seq=5, rev=20, recovered=True)
    spoken(driver, 4, 9)
    driver.cut()  # message 5 is missing, although rev 20 is known
    [entry] = driver.open()["subscriptions"]
    assert (entry.get("since"), "sinceRev" in entry) == (4, False)
    driver.receive({"type": "subscribed", "id": entry["id"], "data": {"seq": 5, "rev": 20, "recovered": True}})
    spoken(driver, 5, 15)
    driver.cut()
    assert driver.open()["subscriptions"][0]["sinceRev"] == 20


def test_server_without_revs_is_resumed_by_seq() -> None:
    driver = opened()
    driver.subscribe(seq=4)
    driver.message(5)
    driver.cut()
    [entry] = driver.open()["subscriptions"]
    assert (entry["since"], "sinceRev" in entry) == (5, False)


def test_changes_beyond_the_replay_are_reported_as_missed() -> None:
    driver = opened()
    driver.subscribe(seq=4, rev=10)
    driver.cut()
    [entry] = driver.open()["subscriptions"]
    driver.receive({"type": "subscribed", "id": entry["id"], "data": {"seq": 4, "rev": 2_000, "recovered": False}})
    assert driver.of("missed") == [{"channel": "chatroom", "chatroomId": "room_1", "since": 4, "seq": 4}]


def test_system_frame_with_a_seq_is_not_a_notification() -> None:
    driver = opened()
    driver.subscribe(InboxSubscription(), seq=3)
    for type_ in ("room:news", "chat:something", "member:news"):
        driver.receive({"type": type_, "data": {"seq": 9}})
    driver.receive({"type": "quiz:opened", "data": {"seq": 4}})
    assert driver.of("missed") == []
    driver.receive({"type": "quiz:opened", "data": {"seq": 4}})
    assert len(driver.of("quiz:opened")) == 1
