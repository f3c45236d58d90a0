"""The link to the server: token, socket, auth, heartbeat, and what to do when it breaks. It knows nothing of rooms and
messages. Pure: frames, times (seconds of one monotonic clock) and chance come in, actions come out.

    idle ── connect ──> connecting (token, socket, auth) ── auth:ok ──> open
                         ^  │ fails                              │ lost
                         │  v                                    │
                        waiting <────────────────────────────────┘     any ── close, 4403, … ──> closed
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from realtime_client.protocol import Frame, ServerClose, Welcome, encode

STABLE_S = 5.0  # a connection that lived so long ends a row of failures
ABUSE_PAUSE_S = 10.0
REFUSED_TOKENS_MAX = 3
RENEW_BEFORE_S = 60.0
RESTORED_IN_AUTH_MAX = 200
AUTH_ID = "auth"
ABNORMAL = 1006
NORMAL = 1000

_FINAL = frozenset({ServerClose.UNSUPPORTED, ServerClose.TOO_BIG, ServerClose.BAD_FRAMES, ServerClose.FORBIDDEN})
_RESTARTING = frozenset({None, ABNORMAL, ServerClose.GOING_AWAY, ServerClose.RESTARTING})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How patient a client is."""

    backoff_first_s: float = 0.5
    backoff_max_s: float = 30.0
    connect_timeout_s: float = 10.0  # each for the token, the socket, and auth
    answer_timeout_s: float = 10.0  # nothing at all heard for so long after something was asked: the link is dead
    heartbeat_s: float | None = None  # None: as the server says
    request_timeout_s: float = 120.0  # messages and other requests; subscriptions wait for ever
    pending_max: int = 1000


class State(StrEnum):
    """Of a client. WAITING: to connect again. CLOSED: for good, unless `connect` is called."""

    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


class TokenReason(StrEnum):
    """Why a token is asked for."""

    CONNECT = "connect"
    EXPIRING = "expiring"
    REFUSED = "refused"


# Actions -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FetchToken:
    """Fetch a token and call `token_ready` or `token_failed`."""

    reason: TokenReason


@dataclass(frozen=True, slots=True)
class Open:
    """Open a socket, and report it under this number."""

    connection: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send this text frame on the socket in use."""

    text: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Leave the socket, if there is one, waiting for nothing."""

    code: int


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell the application."""

    type: str
    data: Any


@dataclass(slots=True)
class Stats:
    """Since the client was made. `latency_s` is that of the last heartbeat."""

    frames_in: int = 0
    frames_out: int = 0
    repeats: int = 0
    reconnects: int = 0
    latency_s: float | None = None


LinkAction = FetchToken | Open | Send | Drop | Emit


class Peer(Protocol):
    """What stands on the link."""

    def restore(self) -> Sequence[dict[str, Any]]:
        """The subscribe frames for a new connection."""

    def lost(self) -> None:
        """The connection is gone."""

    def stopped(self, code: int, reason: str) -> None:
        """There will be no other."""


class Link:
    """See the module's docstring."""

    def __init__(
        self,
        options: ClientOptions,
        act: Callable[[LinkAction], None],
        peer: Peer,
        *,
        token: str | None = None,
        can_refresh: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.state = State.IDLE
        self.connection = 0  # the number of the one in use; 0 is none
        self.is_auth_sent = False
        self.max_message_bytes = 65_536
        self.stats = Stats()
        self._options = options
        self._act = act
        self._peer = peer
        self._token = token
        self._can_refresh = can_refresh
        self._chance = chance
        self._connections = 0
        self._until_s = math.inf  # of waiting, or the deadline of connecting
        self._attempt = 0
        self._opened_at_s = 0.0
        self._was_open = False
        self._drain_s: float | None = None
        self._is_fetching_token = False
        self._refused_tokens = 0
        self._token_ends_at_s = math.inf
        self._renew_at_s = math.inf
        self._heartbeat_s = options.heartbeat_s or 30.0
        self._ping_at_s = math.inf
        self._pings: dict[str, float] = {}
        self._answer_by_s = math.inf

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self.state is State.OPEN

    @property
    def deadline_s(self) -> float:
        """When `tick` is to be called, at the latest."""
        if self.is_open:
            return min(self._ping_at_s, self._answer_by_s, self._renew_at_s)
        return self._until_s

    def connect(self, now_s: float) -> None:
        """Begin, from idle, waiting or closed."""
        if self.state in (State.IDLE, State.WAITING, State.CLOSED):
            self._refused_tokens = 0
            self._begin(now_s)

    def close(self) -> None:
        """End it."""
        if self.state is not State.CLOSED:
            self._stop(NORMAL, "closed by the application")

    def wake(self, now_s: float) -> None:
        """The network is back: do not wait any longer, and do not trust the link."""
        if self.state is State.WAITING:
            self._begin(now_s)
        elif self.is_open:
            self._ping(now_s)

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame."""
        self.stats.frames_out += 1
        self._act(Send(encode(frame).decode()))

    def ask(self, frame: dict[str, Any], now_s: float) -> None:
        """Send a frame that is answered: then the server must say something, whatever it is, in time."""
        self._answer_by_s = min(self._answer_by_s, now_s + self._options.answer_timeout_s)
        self.send(frame)

    def token_ready(self, token: str, now_s: float) -> None:
        """A token to use from now on."""
        self._token = token
        self._token_ends_at_s = math.inf
        self._is_fetching_token = False
        if self.state is State.CONNECTING and self.connection == 0:
            self._open(now_s)
        elif self.is_open:
            self._renew_at_s = math.inf
            self.ask({"type": "auth", "token": token, "id": AUTH_ID}, now_s)

    def token_failed(self, reason: str, now_s: float) -> None:
        """There is no token to be had now."""
        self._is_fetching_token = False
        if self.state is State.CONNECTING and self.connection == 0:
            self._wait(self._backoff_s(), None, f"no token: {reason}", now_s)
        elif self.is_open:
            self._renew_at_s = now_s + self._options.connect_timeout_s

    def opened(self, connection: int, now_s: float) -> None:
        """The socket is open."""
        if self.is_in_use(connection) and not self.is_open:
            self._until_s = now_s + self._options.connect_timeout_s
            self._authenticate()

    def closed(self, connection: int, code: int, reason: str, now_s: float, retry_after_s: float = 0.0) -> None:
        """The socket is closed, or did not open; `retry_after_s` is what the server said to an upgrade."""
        if self.is_in_use(connection):
            self._lost(code, reason, now_s, retry_after_s)

    def is_in_use(self, connection: int) -> bool:
        """Whether what a socket reports is still of interest."""
        return connection != 0 and connection == self.connection

    def heard(self, frame: Frame | None, now_s: float) -> None:
        """Take note of a frame of the connection in use; None is one that could not be read."""
        self._answer_by_s = math.inf
        self.stats.frames_in += 1
        if frame is None:
            return
        match frame.type:
            case "auth:ok":
                self._welcome(msgspec.convert(frame.data, Welcome), now_s)
            case "server:drain":
                self._drain_s = frame.data["reconnectAfterMs"] / 1000
            case "pong" if isinstance(frame.id, str) and frame.id in self._pings:
                self.stats.latency_s = now_s - self._pings[frame.id]
                self._pings.clear()

    def tick(self, now_s: float) -> None:
        """What time alone brings."""
        if self.deadline_s > now_s:
            return
        if self.state is State.WAITING:
            self._begin(now_s)
        elif self.state is State.CONNECTING:
            self._drop("no answer in time", now_s)
        elif self._answer_by_s <= now_s:
            self._drop("the link is silent", now_s)
        else:
            self._tick_open(now_s)

    def _tick_open(self, now_s: float) -> None:
        if self._ping_at_s <= now_s:
            self._ping(now_s)
        if self._renew_at_s <= now_s:
            self._renew_at_s = math.inf
            self._fetch_token(TokenReason.EXPIRING)

    # Up --------------------------------------------------------------------------------------------------------------

    def _begin(self, now_s: float) -> None:
        self._move(State.CONNECTING)
        self._until_s = now_s + self._options.connect_timeout_s
        if self._token is None or (self._can_refresh and self._token_ends_at_s <= now_s):
            self._fetch_token(TokenReason.REFUSED if self._refused_tokens else TokenReason.CONNECT)
        else:
            self._open(now_s)

    def _fetch_token(self, reason: TokenReason) -> None:
        if not self._is_fetching_token:
            self._is_fetching_token = True
            self._act(FetchToken(reason))

    def _open(self, now_s: float) -> None:
        self._connections += 1
        self.connection = self._connections
        self._until_s = now_s + self._options.connect_timeout_s
        self._drain_s = None
        self._pings.clear()
        self._act(Open(self.connection))

    def _authenticate(self) -> None:
        """One frame restores all subscriptions; those that it has no room for come right behind it."""
        self.is_auth_sent = True
        frame: dict[str, Any] = {"type": "auth", "token": self._token, "id": AUTH_ID}
        entries = self._peer.restore()
        room, count = self.max_message_bytes - size_of(frame | {"subscriptions": []}), 0
        for entry in entries[:RESTORED_IN_AUTH_MAX]:
            room -= size_of(entry) + 1
            if room < 0:
                break
            count += 1
        self.send(frame | {"subscriptions": entries[:count]} if count else frame)
        for entry in entries[count:]:
            self.send(entry)

    def _welcome(self, data: Welcome, now_s: float) -> None:
        self.max_message_bytes = data.max_message_bytes
        self._heartbeat_s = self._options.heartbeat_s or data.heartbeat_interval / 1000
        life = datetime.fromisoformat(data.expires_at) - datetime.fromisoformat(data.server_time)
        life_s = life.total_seconds()  # by the server's clock alone
        renew_in_s = life_s - min(RENEW_BEFORE_S, life_s / 4)
        self._renew_at_s = now_s + renew_in_s if self._can_refresh and renew_in_s >= 0 else math.inf
        self._token_ends_at_s = now_s + life_s
        self._refused_tokens = 0
        if self.is_open:
            return
        self._opened_at_s = now_s
        self._ping_at_s = now_s + self._heartbeat_s
        self.stats.reconnects += self._was_open
        self._move(State.OPEN, resumed=self._was_open)
        self._was_open = True

    def _ping(self, now_s: float) -> None:
        id_ = f"ping-{self.stats.frames_out}"
        self._pings[id_] = now_s
        self._ping_at_s = now_s + self._heartbeat_s
        self.ask({"type": "ping", "id": id_}, now_s)

    # Down ------------------------------------------------------------------------------------------------------------

    def _drop(self, reason: str, now_s: float) -> None:
        self._act(Drop(NORMAL))
        self._lost(None, reason, now_s, 0.0)

    def _lost(self, code: int | None, reason: str, now_s: float, retry_after_s: float) -> None:
        if self.is_open and now_s - self._opened_at_s >= STABLE_S:
            self._attempt = 0
        self._down()
        if code is not None and code in _FINAL:
            self._stop(code, reason)
        elif code == ServerClose.UNAUTHORIZED:
            self._token_refused(reason, now_s)
        elif self._drain_s is not None and code in _RESTARTING:
            self._wait(self._drain_s, code, reason, now_s)
        else:
            least_s_by_code: dict[int | None, float] = {
                ServerClose.RATE_ABUSE: ABUSE_PAUSE_S,
                ServerClose.OVERLOADED: self._options.backoff_first_s,
            }
            least_s = least_s_by_code.get(code, 0.0)
            self._wait(max(least_s, retry_after_s) + self._backoff_s(), code, reason, now_s)

    def _down(self) -> None:
        self.connection = 0
        self.is_auth_sent = False
        self._ping_at_s = self._answer_by_s = self._renew_at_s = math.inf
        self._peer.lost()

    def _token_refused(self, reason: str, now_s: float) -> None:
        self._refused_tokens += 1
        if not self._can_refresh or self._refused_tokens > REFUSED_TOKENS_MAX:
            self._stop(ServerClose.UNAUTHORIZED, reason)
            return
        self._token = None
        self._wait(self._backoff_s(), ServerClose.UNAUTHORIZED, reason, now_s)

    def _wait(self, delay_s: float, code: int | None, reason: str, now_s: float) -> None:
        self._until_s = now_s + delay_s
        self._is_fetching_token = False  # one that hangs is not waited for
        self._move(State.WAITING, code=code, reason=reason, retryInMs=round(delay_s * 1000))

    def _stop(self, code: int, reason: str) -> None:
        self._down()
        self._until_s = math.inf
        self._attempt = 0
        self._is_fetching_token = False
        self._act(Drop(NORMAL))
        self._move(State.CLOSED, code=code, reason=reason)
        self._peer.stopped(code, reason)

    def _backoff_s(self) -> float:
        """Doubles from attempt to attempt; the first after a good connection is short, for each client another."""
        top_s = min(self._options.backoff_first_s * 2.0 ** min(self._attempt, 60), self._options.backoff_max_s)
        bottom_s = 0.0 if self._attempt == 0 else top_s / 2
        self._attempt += 1
        return bottom_s + self._chance() * (top_s - bottom_s)

    def _move(self, state: State, **more: Any) -> None:
        previous, self.state = self.state, state
        self._act(Emit("state", {"state": state.value, "previous": previous.value, **more}))


def size_of(frame: dict[str, Any]) -> int:
    """The size of a frame on the wire, in bytes."""
    return len(encode(frame))
