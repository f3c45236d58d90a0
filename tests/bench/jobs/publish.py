"""The publisher of a comparable server: one socket, the same messages as this project's."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.client import Dialect
from tests.bench.crowd import ConnectOutcome, Crowd
from tests.bench.jobs.pace import paced
from tests.bench.marks import message_frame, now_us
from tests.bench.tally import Tally
from tests.bench.worker import JobPipe


@dataclass
class Publish:
    """`rate` messages per second of `size` bytes with consecutive seqs from 1; `wrap` makes the server's frame."""

    name: str
    host: str
    port: int
    dialect: Dialect
    wrap: Callable[[bytes], bytes]
    room: str
    rate: float
    size: int

    async def run(self, link: JobPipe) -> Tally:
        """Publish until the window ends."""
        crowd = Crowd(self.host, self.port, 60, 1)
        if await crowd.open_one(self.dialect) is not ConnectOutcome.LISTENS:
            raise ConnectionError(f"the publisher could not join: {dict(crowd.failed)}")
        (client,) = crowd.clients
        link.ready("publisher")
        window = await link.window()
        seq = 0
        async for count in paced(window, self.rate):
            frames: list[bytes] = []
            for _ in range(count):
                seq += 1
                frames.append(self.wrap(message_frame(self.room, seq, self.size, now_us())))
            client.write(b"".join(frames))
            link.counts["sent"] = seq
        link.keep = crowd
        return Tally(sent=seq, last_seq={self.room: seq})
