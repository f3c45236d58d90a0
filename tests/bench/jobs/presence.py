"""Users who are present, and leave all at once when the window begins."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.client import Dialect
from tests.bench.crowd import Crowd
from tests.bench.tally import Tally
from tests.bench.worker import JobPipe


@dataclass
class Departure:
    """Opens one socket per entry of `dialects` before the window, and drops all of them when it begins."""

    name: str
    host: str
    port: int
    dialects: Sequence[Dialect]
    first_address: int = 2
    concurrency: int = 100

    async def run(self, link: JobPipe) -> Tally:
        """Connect, report ready, and leave."""
        crowd = Crowd(self.host, self.port, self.first_address, self.concurrency)
        opening = asyncio.create_task(crowd.open(self.dialects))
        while not opening.done():
            link.counts["connected"] = len(crowd.clients)
            await asyncio.wait({opening}, timeout=0.2)
        await opening
        if crowd.failed:
            raise ConnectionError(f"not all joined: {dict(crowd.failed)}")
        link.ready(f"{len(crowd.clients)} users")
        await link.window()
        crowd.leave()
        await link.finish()
        return Tally(received=len(crowd.clients))
