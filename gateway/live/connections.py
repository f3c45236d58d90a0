"""All open sockets of this process, and periodic sweeps over them instead of a timer per socket."""

import asyncio
import time

from gateway import metrics
from gateway.background import Spawn
from gateway.live.due_wheel import DueWheel
from gateway.live.socket import Socket
from shared.times import now_ms
from shared.waiting import until_next

SESSION_SWEEP_S = 1.0
SLOW_SWEEP_S = 0.05
CLOCK_STEP_MS = 500  # a drift this large from the monotonic clock means the wall clock was stepped


class Connections:
    """Every socket, by user, and the slow ones. Bounded by MAX_CONNECTIONS.

    Every method costs O(1), for any number of sockets of a user; only the sweeps visit all sockets.
    """

    def __init__(self, spawn: Spawn) -> None:
        self.sockets: set[Socket] = set()
        self.all_gone = asyncio.Event()
        self.all_gone.set()
        self.by_user: dict[str, dict[Socket, None]] = {}  # in the order of their authentication
        self._closing: dict[str, set[Socket]] = {}  # those of `by_user` that are closing
        self._due = DueWheel[Socket]()  # sockets whose session needs a tick
        self._clock_offset_ms: float | None = None  # of the wall clock from the monotonic one, after its last step
        self._slow: set[Socket] = set()
        self._any_slow = asyncio.Event()
        self.answers = 0  # frames sent to single sockets, not by the fan-out, since the last `_measure`
        self.answer_bytes = 0
        self.pings = 0  # text frames received that were pings
        self.bytes_in = 0  # size of all text frames received
        self.spawn = spawn

    def add(self, socket: Socket) -> None:
        """Add a socket that has opened."""
        self.sockets.add(socket)
        self._due.add(socket, 0.0)
        self.all_gone.clear()
        metrics.CONNECTIONS_OPENED.inc()
        metrics.CONNECTIONS.set(len(self.sockets))

    def tick_soon(self, socket: Socket) -> None:
        """Tick the session in the next sweep, because its time limits have changed."""
        self._due.add(socket, 0.0)

    def identify(self, socket: Socket, user_id: str) -> None:
        """Record the user of a socket that has authenticated."""
        socket.user_id = user_id
        self.by_user.setdefault(user_id, {})[socket] = None
        if socket.closing:
            self.note_closing(socket)

    def note_closing(self, socket: Socket) -> None:
        """Record that a socket is closing: it no longer counts as a connection of its user."""
        if socket.user_id:
            self._closing.setdefault(socket.user_id, set()).add(socket)

    def open_count(self, user_id: str) -> int:
        """Return the number of a user's sockets that are not closing."""
        return len(self.by_user.get(user_id, ())) - len(self._closing.get(user_id, ()))

    def newest_open(self, user_id: str) -> Socket | None:
        """Return the user's socket that authenticated last and is not closing."""
        newest_first = reversed(self.by_user.get(user_id, {}))
        return next((socket for socket in newest_first if not socket.closing), None)

    def remove(self, socket: Socket) -> None:
        """Remove a closed socket."""
        self.sockets.discard(socket)
        if not self.sockets:
            self.all_gone.set()
        for channel in list(socket.session.subscriptions):
            socket.unsubscribed(channel)
        for symbol in list(socket.session.symbols):
            socket.unsubscribed_prices(symbol)
        self._slow.discard(socket)
        self._due.discard(socket)
        socket.drop_queue()
        _discard(self._closing, socket)
        if (own := self.by_user.get(socket.user_id)) is not None:
            own.pop(socket, None)
            if not own:
                del self.by_user[socket.user_id]
        metrics.CONNECTIONS.set(len(self.sockets))
        metrics.SLOW.set(len(self._slow))

    def became_slow(self, socket: Socket) -> None:
        """Let `sweep_slow` flush the queue of a socket that does not read fast enough."""
        self._slow.add(socket)
        self._any_slow.set()
        metrics.SLOW.set(len(self._slow))

    async def sweep_sessions(self) -> None:
        """Close silent, unauthenticated and expired sockets, once per second, until cancelled."""
        while True:
            await until_next(SESSION_SWEEP_S)
            self._measure()
            self.tick(time.monotonic(), now_ms())

    def tick(self, now_s: float, wall_ms: int) -> None:
        """Tick the sessions that are due; all of them after the wall clock was stepped."""
        due = self._due.take(now_s)
        if self._was_clock_stepped(now_s, wall_ms):
            due = list(self.sockets)
        for socket in due:
            if socket.closing:
                continue
            if (close := socket.session.tick(now_s, wall_ms)) is not None:
                socket.close(close)
            else:
                self._due.add(socket, socket.session.due_s)

    async def sweep_slow(self) -> None:
        """Flush the queues of slow sockets as they read, until cancelled."""
        while True:
            await self._any_slow.wait()
            await asyncio.sleep(SLOW_SWEEP_S)
            for socket in [socket for socket in self._slow if socket.flush_queue()]:
                self._slow.discard(socket)
                metrics.SLOW.set(len(self._slow))
            if not self._slow:
                self._any_slow.clear()

    def _measure(self) -> None:
        """Add the plain integer counts to the metrics."""
        metrics.FRAMES_OUT.labels("answer").inc(self.answers)
        metrics.BYTES_OUT.labels("answer").inc(self.answer_bytes)
        metrics.FRAMES_IN.labels("ping").inc(self.pings)
        metrics.BYTES_IN.inc(self.bytes_in)
        self.answers = self.answer_bytes = self.pings = self.bytes_in = 0
        metrics.USERS.set(len(self.by_user))
        metrics.SLOW_BYTES.set(
            sum(socket.send_queue.size_bytes for socket in self._slow if socket.send_queue is not None)
        )

    def _was_clock_stepped(self, now_s: float, wall_ms: int) -> bool:
        """Return whether the wall clock, by which tokens expire, was stepped since the last call that returned True."""
        offset_ms = wall_ms - now_s * 1000
        if self._clock_offset_ms is not None and abs(offset_ms - self._clock_offset_ms) < CLOCK_STEP_MS:
            return False
        self._clock_offset_ms = offset_ms
        return True


def _discard(sockets: dict[str, set[Socket]], socket: Socket) -> None:
    if (own := sockets.get(socket.user_id)) is not None:
        own.discard(socket)
        if not own:
            del sockets[socket.user_id]
