"""Users that send with `chat:send`, subscribe to rooms, or both."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.client import BenchSocket
from tests.bench.crowd import Crowd
from tests.bench.dialects import ChatPeer, Realtime, chat_send
from tests.bench.jobs.pace import paced
from tests.bench.marks import marked_text, now_us, read_mark
from tests.bench.tally import MeasureWindow, Order, Tally
from tests.bench.wire import BenchFrame
from tests.bench.worker import JobPipe, sleep_until

SETTLE_TIMEOUT_S = 20.0
POLL_S = 0.02

_MESSAGE = b'{"type":"chat:message"'
_ACK = b'{"type":"chat:ack"'
_ERROR = b'{"type":"error"'
_ID = re.compile(rb'"id":(\d+)')
_ROOM = re.compile(rb'"chatroomId":"([^"]+)"')
_REASON = re.compile(rb'"(?:code|message)":"([^"]*)"')
_SEQ = re.compile(rb'"seq":(\d+)')


@dataclass(frozen=True)
class User:
    """`sends_to`: rooms taken in turn; `listens_to`: rooms; `more`: further subscriptions.

    Latencies count only deliveries to users that are `timed`. `on_peer`: the server is peers/quiet.js.
    """

    user_id: str
    sends_to: tuple[str, ...] = ()
    listens_to: tuple[str, ...] = ()
    more: tuple[dict[str, object], ...] = ()
    timed: bool = True
    on_peer: bool = False

    def dialect(self) -> Realtime | ChatPeer:
        """Return how the user subscribes."""
        if self.on_peer:
            return ChatPeer(self.user_id, self.listens_to)
        rooms = [{"channel": "chatroom", "chatroomId": room} for room in self.listens_to]
        return Realtime(self.user_id, [*rooms, *self.more])


class _Ear:
    """The frames that one socket receives."""

    __slots__ = ("orders", "tally", "timed", "window")

    def __init__(self, user: User, first_seqs: Mapping[str, int], tally: Tally) -> None:
        self.orders = {room.encode(): Order(first_seqs.get(room, 0)) for room in user.listens_to}
        self.tally = tally
        self.timed = user.timed
        self.window = MeasureWindow(0, 0, 0)

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Count a frame."""
        payload = frame.payload
        if payload.startswith(_MESSAGE):
            self._message(payload)
        elif payload.startswith(_ACK):
            self._ack(payload)
        elif payload.startswith(_ERROR):
            self._error(payload)

    def _error(self, payload: bytes) -> None:
        tally, id_ = self.tally, _ID.search(payload)
        tally.refused += 1
        tally.closed[b" ".join(_REASON.findall(payload)).decode()] += 1
        if id_ is not None and self.window.measure_us <= int(id_[1]) < self.window.until_us:
            tally.refusals.add(now_us() - int(id_[1]))

    def _message(self, payload: bytes) -> None:
        mark, room = read_mark(payload), _ROOM.search(payload)
        if mark is None or room is None:
            return
        tally, window, arrived_us = self.tally, self.window, now_us()
        self.orders[room[1]].saw(mark.seq)
        tally.received += 1
        if window.measure_us <= arrived_us < window.until_us:
            tally.delivered += 1
        if self.timed and window.measure_us <= mark.sent_us < window.until_us:
            tally.latencies.add(arrived_us - mark.sent_us)

    def _ack(self, payload: bytes) -> None:
        id_, room, seq = _ID.search(payload), _ROOM.search(payload), _SEQ.search(payload)
        if id_ is None or room is None or seq is None:
            return
        tally, name, sent_us = self.tally, room[1].decode(), int(id_[1])
        tally.acked += 1
        tally.last_seq[name] = max(tally.last_seq.get(name, 0), int(seq[1]))
        arrived_us = now_us()
        if self.window.measure_us <= arrived_us < self.window.until_us:
            tally.acked_in_time += 1
        if self.window.measure_us <= sent_us < self.window.until_us:
            tally.answers.add(arrived_us - sent_us)


@dataclass
class ChatLoad:
    """The users of one process; the senders take turns, `rate` messages per second in total."""

    name: str
    host: str
    port: int
    users: Sequence[User]
    rate: float = 0.0
    size: int = 100  # bytes of a message's text
    first_address: int = 40
    concurrency: int = 50
    tally: Tally = field(default_factory=Tally)

    async def run(self, link: JobPipe) -> Tally:
        """Join, send, receive, check."""
        crowd = Crowd(self.host, self.port, self.first_address, self.concurrency)
        opening = asyncio.create_task(crowd.open(user.dialect() for user in self.users))
        while not opening.done():
            link.counts["connected"] = len(crowd.clients)
            await asyncio.wait({opening}, timeout=0.2)
        await opening
        if crowd.failed:
            raise ConnectionError(f"{len(crowd.clients)} of {len(self.users)} joined: {dict(crowd.failed)}")
        link.counts["connected"] = len(crowd.clients)
        by_id = {user.user_id: user for user in self.users}
        ears = {
            client: _Ear(by_id[_dialect(client).user_id], _dialect(client).first_seqs(), self.tally)
            for client in crowd.clients
        }
        for client, ear in ears.items():
            client.on_frame = ear.take
        beating = asyncio.create_task(crowd.keep_alive())
        link.ready(f"{len(crowd.clients)} users")
        window = await link.window()
        for ear in ears.values():
            ear.window = window
        senders = [(client, room) for client in crowd.clients for room in by_id[_dialect(client).user_id].sends_to]
        await self._load(link, window, senders)
        last_seq = self.tally.last_seq if senders else (await link.finish()).last_seq
        await self._settle(ears, last_seq)
        beating.cancel()
        for ear in ears.values():
            self._check(ear, last_seq)
        self.tally.closed.update(crowd.closed)
        crowd.leave()
        return self.tally

    async def _load(self, link: JobPipe, window: MeasureWindow, senders: Sequence[tuple[BenchSocket, str]]) -> None:
        if not senders:
            await sleep_until(window.until_us, now_us())
            return
        async for count in paced(window, self.rate):
            for _ in range(count):
                client, room = senders[self.tally.sent % len(senders)]
                sent_us = now_us()
                client.write(chat_send(room, marked_text(self.size, sent_us), sent_us))
                self.tally.sent += 1
            link.counts |= {"sent": self.tally.sent, "acked": self.tally.acked, "deliveries": self.tally.received}

    async def _settle(self, ears: dict[BenchSocket, _Ear], last_seq: dict[str, int]) -> None:
        """Wait for the last acks and messages, at most 20 s."""
        deadline_us = now_us() + round(SETTLE_TIMEOUT_S * 1e6)
        while now_us() < deadline_us:
            answered = self.tally.acked + self.tally.refused >= self.tally.sent
            if answered and not any(self._missing(ear, last_seq) for ear in ears.values()):
                return
            await asyncio.sleep(POLL_S)

    @staticmethod
    def _missing(ear: _Ear, last_seq: dict[str, int]) -> int:
        return sum(order.lost(last_seq.get(room.decode(), 0)) for room, order in ear.orders.items())

    def _check(self, ear: _Ear, last_seq: dict[str, int]) -> None:
        self.tally.lost += self._missing(ear, last_seq)
        for order in ear.orders.values():
            self.tally.repeated += order.repeated
            self.tally.disordered += order.disordered


def _dialect(client: BenchSocket) -> Realtime | ChatPeer:
    assert isinstance(client.dialect, Realtime | ChatPeer)
    return client.dialect
