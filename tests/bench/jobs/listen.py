"""Sockets that subscribe to one room together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.client import BenchSocket, Dialect
from tests.bench.counting import CountedPlace, CountedRoom
from tests.bench.crowd import Crowd
from tests.bench.marks import now_us
from tests.bench.roomlog import LogPosition, RoomLog
from tests.bench.tally import MeasureWindow, Tally
from tests.bench.worker import Finish, JobPipe, sleep_until

SETTLE_TIMEOUT_S = 20.0
POLL_S = 0.02
STUCK_S = 1.0


@dataclass
class Listen:
    """One socket per entry of `dialects`.

    `counts`: the server chooses its framing, so reads are counted, not compared.
    """

    name: str
    host: str
    port: int
    dialects: Sequence[Dialect]
    room: str = "room"
    counts: bool = False
    first_address: int = 2
    concurrency: int = 50
    stuck: int = 0  # number of sockets that read nothing during the load
    log: RoomLog = field(default_factory=RoomLog)
    counted: CountedRoom = field(default_factory=CountedRoom)

    async def run(self, link: JobPipe) -> Tally:
        """Join, receive, check."""
        crowd = Crowd(self.host, self.port, self.first_address, self.concurrency)
        opening = asyncio.create_task(crowd.open(self.dialects))
        while not opening.done():
            link.counts["connected"] = len(crowd.clients)
            await asyncio.wait({opening}, timeout=0.2)
        await opening
        if len(crowd.clients) < len(self.dialects):
            raise ConnectionError(f"{len(crowd.clients)} of {len(self.dialects)} joined: {dict(crowd.failed)}")
        link.counts["connected"] = len(crowd.clients)
        link.ready(f"{len(crowd.clients)} sockets")
        window = await link.window()
        stuck, listening = crowd.clients[: self.stuck], crowd.clients[self.stuck :]
        self._begin(stuck, listening)
        watching = asyncio.create_task(self._watch(link, len(listening)))
        await sleep_until(window.until_us, now_us())
        finish = await link.finish()
        await self._settle(listening, finish)
        watching.cancel()
        tally = self._tally(listening, window, finish)
        await self._look_at(stuck, tally)
        tally.answers, tally.closed = crowd.joining, crowd.closed
        crowd.leave()
        return tally

    async def _look_at(self, stuck: Sequence[BenchSocket], tally: Tally) -> None:
        """Resume reading on the stuck sockets, to learn whether the server has closed them."""
        for client in stuck:
            if client.transport is not None:
                client.transport.resume_reading()
        await asyncio.sleep(STUCK_S if stuck else 0)
        tally.extra["stuck_closed"] = sum(not client.is_open for client in stuck)

    def _begin(self, stuck: Sequence[BenchSocket], listening: Sequence[BenchSocket]) -> None:
        for client in stuck:
            if client.transport is not None:
                client.transport.pause_reading()
        for client in listening:
            if self.counts:
                client.counted = CountedPlace(self.counted)
            else:
                client.place = LogPosition(self.log)

    async def _watch(self, link: JobPipe, sockets: int) -> None:
        while True:
            seqs = self.counted.sent_us if self.counts else self.log.ends
            link.counts["deliveries"] = len(seqs) * sockets
            await asyncio.sleep(0.5)

    async def _settle(self, clients: Sequence[BenchSocket], finish: Finish) -> None:
        """Wait until every socket has everything, at most 20 s."""
        last = finish.last_seq.get(self.room, 0)
        deadline_us = now_us() + round(SETTLE_TIMEOUT_S * 1e6)
        while any(self._seq(client) < last for client in clients):
            if now_us() > deadline_us:
                return
            await asyncio.sleep(POLL_S)

    def _seq(self, client: BenchSocket) -> int:
        if client.counted is not None:
            return client.counted.order.last
        return client.place.index if client.place is not None else 0

    def _tally(self, clients: Sequence[BenchSocket], window: MeasureWindow, finish: Finish) -> Tally:
        tally = Tally()
        last = finish.last_seq.get(self.room, 0)
        (self.counted if self.counts else self.log).tally(window, tally)
        for client in clients:
            if client.counted is not None:
                order = client.counted.order
                tally.lost += order.lost(last)
            elif client.place is not None:
                order = self.log.order
                tally.lost += max(last - client.place.index + order.repeated, 0)
                tally.unlike += client.place.unlike
            tally.repeated += order.repeated
            tally.disordered += order.disordered
        return tally
