"""Connection to the server: token, socket, authentication, heartbeat and recovery; no rooms or messages. Pure.

Frames, times (seconds of one monotonic clock) and random numbers are inputs; actions are the output.

    idle ── connect ──> connecting (token, socket, auth) ── auth:ok ──> open
                         ^  │ failure                            │ connection lost
                         │  v                                    │
                        waiting <────────────────────────────────┘     any ── close, 4403, … ──> closed
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from realtime_client.actions import Drop, Emit, FetchToken, LinkAction, Open, Send, TokenReason
from realtime_client.credentials import Credentials
from realtime_client.heartbeat import Heartbeat
from realtime_client.options import ClientOptions
from realtime_client.protocol import (
    NORMAL_CLOSURE,
    UNRECOVERABLE,
    Frame,
    ServerClose,
    Welcome,
    encode,
    size_bytes,
)
from realtime_client.reconnect import ReconnectPolicy
from realtime_client.status import State, Stats

STABLE_S = 5.0  # a connection of this age ends a series of failures
RESTORED_IN_AUTH_MAX = 200
AUTH_ID = "auth"
DEFAULT_HEARTBEAT_S = 30.0
DEFAULT_MESSAGE_MAX_BYTES = 65_536


class LinkObserver(Protocol):
    """The part of `Core` that a link calls."""

    def restore(self) -> Sequence[dict[str, Any]]:
        """Return the subscribe frames for a new connection."""

    def disconnected(self) -> None:
        """Discard what belonged to the lost connection."""

    def stopped(self, code: int, reason: str) -> None:
        """Fail all requests: the link stays closed."""


class Link:
    """State machine of one link; see the module's docstring for its states.

    The link numbers its connections, so that late reports of an abandoned socket are ignored.
    """

    def __init__(
        self,
        options: ClientOptions,
        credentials: Credentials,
        reconnect: ReconnectPolicy,
        act: Callable[[LinkAction], None],
        observer: LinkObserver,
    ) -> None:
        self.state = State.IDLE
        self.connection = 0  # number of the current connection; 0: none
        self.is_auth_sent = False
        self.max_message_bytes = DEFAULT_MESSAGE_MAX_BYTES
        self.stats = Stats()
        self._options = options
        self._credentials = credentials
        self._reconnect = reconnect
        self._heartbeat = Heartbeat(options.heartbeat_s or DEFAULT_HEARTBEAT_S, options.answer_timeout_s)
        self._act = act
        self._observer = observer
        self._connections = 0
        self._until_s = math.inf  # end of the wait, or deadline of the connection attempt
        self._opened_at_s = 0.0
        self._was_open = False

    @property
    def is_open(self) -> bool:
        """Return whether frames can be sent."""
        return self.state is State.OPEN

    @property
    def deadline_s(self) -> float:
        """Return the time by which the shell must call `tick`."""
        if self.is_open:
            return min(self._heartbeat.deadline_s, self._credentials.renew_at_s)
        return self._until_s

    # Calls of the application ----------------------------------------------------------------------------------------

    def connect(self, now_s: float) -> None:
        """Start a connection attempt, unless one is in progress or the link is open."""
        if self.state in (State.IDLE, State.WAITING, State.CLOSED):
            self._credentials.reset_refusals()
            self._begin(now_s)

    def close(self) -> None:
        """Close the link permanently."""
        if self.state is not State.CLOSED:
            self._stop(NORMAL_CLOSURE, "closed by the application")

    def wake(self, now_s: float) -> None:
        """End the wait for the next attempt, or ping at once: the network is back and an open link may be dead."""
        if self.state is State.WAITING:
            self._begin(now_s)
        elif self.is_open:
            self._ping(now_s)

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame."""
        self.stats.frames_out += 1
        self._act(Send(encode(frame).decode()))

    def ask(self, frame: dict[str, Any], now_s: float) -> None:
        """Send a frame that the server answers, and expect a frame within `answer_timeout_s`."""
        self._heartbeat.expect_frame(now_s)
        self.send(frame)

    # Reports of the shell --------------------------------------------------------------------------------------------

    def token_ready(self, token: str, now_s: float) -> None:
        """Use a new token: open the socket that waits for it, or renew the open connection."""
        self._credentials.fetched(token)
        if self._awaits_token:
            self._open(now_s)
        elif self.is_open:
            self.ask({"type": "auth", "token": token, "id": AUTH_ID}, now_s)

    def token_failed(self, reason: str, now_s: float) -> None:
        """Schedule another attempt after a failed token fetch. An open connection stays open meanwhile."""
        self._credentials.abandon_fetch()
        if self._awaits_token:
            self._wait(self._reconnect.backoff_s(), None, f"no token: {reason}", now_s)
        elif self.is_open:
            self._credentials.retry_renewal(now_s + self._options.connect_timeout_s)

    def opened(self, connection: int, now_s: float) -> None:
        """Authenticate on a socket that opened."""
        if self.is_current(connection) and not self.is_open:
            self._until_s = now_s + self._options.connect_timeout_s
            self._authenticate()

    def closed(self, connection: int, code: int, reason: str, now_s: float, retry_after_s: float = 0.0) -> None:
        """Recover from a socket that closed or failed to open.

        `retry_after_s` is the Retry-After of a refused upgrade.
        """
        if self.is_current(connection):
            self._lost(code, reason, now_s, retry_after_s)

    def is_current(self, connection: int) -> bool:
        """Return whether a report concerns the current connection."""
        return connection != 0 and connection == self.connection

    def frame_received(self, frame: Frame | None, now_s: float) -> None:
        """Process what a frame means for the connection. None: an unreadable frame, which is a sign of life as well."""
        self._heartbeat.frame_received()
        self.stats.frames_in += 1
        if frame is None:
            return
        match frame.type:
            case "auth:ok":
                self._authenticated(msgspec.convert(frame.data, Welcome), now_s)
            case "server:drain":
                self._reconnect.draining(frame.data["reconnectAfterMs"] / 1000)
            case "pong":
                latency_s = self._heartbeat.round_trip_s(frame.id, now_s)
                self.stats.latency_s = self.stats.latency_s if latency_s is None else latency_s

    def tick(self, now_s: float) -> None:
        """Act on deadlines that have passed."""
        if self.deadline_s > now_s:
            return
        if self.state is State.WAITING:
            self._begin(now_s)
        elif self.state is State.CONNECTING:
            self._drop("connection attempt timed out", now_s)
        elif self._heartbeat.frame_by_s <= now_s:
            self._drop("no frame from the server", now_s)
        else:
            self._tick_open(now_s)

    def _tick_open(self, now_s: float) -> None:
        if self._heartbeat.ping_at_s <= now_s:
            self._ping(now_s)
        if self._credentials.renew_at_s <= now_s:
            self._credentials.cancel_renewal()
            self._fetch_token(TokenReason.EXPIRING)

    # Connection set-up -----------------------------------------------------------------------------------------------

    @property
    def _awaits_token(self) -> bool:
        return self.state is State.CONNECTING and self.connection == 0

    def _begin(self, now_s: float) -> None:
        self._move(State.CONNECTING)
        self._until_s = now_s + self._options.connect_timeout_s
        if self._credentials.is_usable(now_s):
            self._open(now_s)
        else:
            self._fetch_token(self._credentials.fetch_reason)

    def _fetch_token(self, reason: TokenReason) -> None:
        if self._credentials.begin_fetch():
            self._act(FetchToken(reason))

    def _open(self, now_s: float) -> None:
        self._connections += 1
        self.connection = self._connections
        self._until_s = now_s + self._options.connect_timeout_s
        self._reconnect.connecting()
        self._act(Open(self.connection))

    def _authenticate(self) -> None:
        """Restore the subscriptions in the auth frame; send those that do not fit in separate frames."""
        self.is_auth_sent = True
        frame: dict[str, Any] = {"type": "auth", "token": self._credentials.token, "id": AUTH_ID}
        entries = self._observer.restore()
        free_bytes, count = self.max_message_bytes - size_bytes(frame | {"subscriptions": []}), 0
        for entry in entries[:RESTORED_IN_AUTH_MAX]:
            free_bytes -= size_bytes(entry) + 1
            if free_bytes < 0:
                break
            count += 1
        self.send(frame | {"subscriptions": entries[:count]} if count else frame)
        for entry in entries[count:]:
            self.send(entry)

    def _authenticated(self, welcome: Welcome, now_s: float) -> None:
        self.max_message_bytes = welcome.max_message_bytes
        self._heartbeat.interval_s = self._options.heartbeat_s or welcome.heartbeat_interval / 1000
        self._credentials.accepted(welcome, now_s)
        if self.is_open:  # the answer to a renewal
            return
        self._opened_at_s = now_s
        self._heartbeat.start(now_s)
        self.stats.reconnects += self._was_open
        self._move(State.OPEN, resumed=self._was_open)
        self._was_open = True

    def _ping(self, now_s: float) -> None:
        id_ = f"ping-{self.stats.frames_out}"
        self._heartbeat.pinged(id_, now_s)
        self.ask({"type": "ping", "id": id_}, now_s)

    # Connection loss -------------------------------------------------------------------------------------------------

    def _drop(self, reason: str, now_s: float) -> None:
        self._act(Drop())
        self._lost(None, reason, now_s, 0.0)

    def _lost(self, code: int | None, reason: str, now_s: float, retry_after_s: float) -> None:
        if self.is_open and now_s - self._opened_at_s >= STABLE_S:
            self._reconnect.reset()
        self._disconnect()
        if code is not None and code in UNRECOVERABLE:
            self._stop(code, reason)
        elif code != ServerClose.UNAUTHORIZED:
            self._wait(self._reconnect.delay_s(code, retry_after_s), code, reason, now_s)
        elif self._credentials.refused():
            self._wait(self._reconnect.backoff_s(), code, reason, now_s)
        else:
            self._stop(code, reason)

    def _disconnect(self) -> None:
        self.connection = 0
        self.is_auth_sent = False
        self._heartbeat.stop()
        self._credentials.disconnected()
        self._observer.disconnected()

    def _wait(self, delay_s: float, code: int | None, reason: str, now_s: float) -> None:
        self._until_s = now_s + delay_s
        self._credentials.abandon_fetch()
        self._move(State.WAITING, code=code, reason=reason, retryInMs=round(delay_s * 1000))

    def _stop(self, code: int, reason: str) -> None:
        self._disconnect()
        self._until_s = math.inf
        self._reconnect.reset()
        self._credentials.abandon_fetch()
        self._act(Drop())
        self._move(State.CLOSED, code=code, reason=reason)
        self._observer.stopped(code, reason)

    def _move(self, state: State, **fields: Any) -> None:
        previous, self.state = self.state, state
        self._act(Emit("state", {"state": state.value, "previous": previous.value, **fields}))
