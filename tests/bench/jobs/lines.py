"""Deliveries as a worker publishes them: finished lines on `realtime.lines`."""

import asyncio
from dataclasses import dataclass

from shared.bus.bus import Bus
from shared.bus.delivery import Delivery, DeliveryKind, room_channel
from tests.bench.jobs.pace import paced
from tests.bench.marks import message_frame, now_us
from tests.bench.tally import Tally
from tests.bench.worker import JobPipe

CREATED_REV = 1  # the entry that created the room; the messages follow it


@dataclass
class Lines:
    """`rate` messages per second, each a frame of `size` bytes, with consecutive seqs from 1."""

    name: str
    amqp_url: str
    room: str
    rate: float
    size: int

    async def run(self, link: JobPipe) -> Tally:
        """Publish until the window ends."""
        tally = Tally()
        seq = 0
        unconfirmed: set[asyncio.Future[None]] = set()

        def settled(future: "asyncio.Future[None]") -> None:
            unconfirmed.discard(future)
            tally.refused += future.exception() is not None

        async with Bus(self.amqp_url, f"load-{self.name}") as bus:
            await bus.wait_connected()
            link.ready("publisher")
            window = await link.window()
            async for count in paced(window, self.rate):
                for _ in range(count):
                    seq += 1
                    frame = message_frame(self.room, seq, self.size, now_us())
                    rev = CREATED_REV + seq
                    future = bus.deliver(Delivery(room_channel(self.room), DeliveryKind.ORDERED, rev, "", frame))
                    if future not in unconfirmed:
                        unconfirmed.add(future)
                        future.add_done_callback(settled)
                link.counts["sent"] = seq
            while unconfirmed:
                await asyncio.wait(set(unconfirmed))
        tally.sent = seq
        tally.last_seq = {self.room: seq}
        return tally
