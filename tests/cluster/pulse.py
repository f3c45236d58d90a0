"""A steady load on a system whose broker loses nodes, and the longest pauses that its users notice."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import aiohttp

from tests.chaos.client import ChaosClient, Clock
from tests.chaos.ledger import Ledger
from tests.support.tokens import mint

SENDS_PER_ROOM_S = 5.0
READS_EACH_S = 5.0
READ_TIMEOUT_S = 30.0
READER = "cluster-reader"


@dataclass
class Pauses:
    """The longest pauses from a fault on, in seconds."""

    acks: float = 0.0  # without an ack in any room
    room: float = 0.0  # without an ack in one room
    reads: dict[str, float] = field(default_factory=dict)  # without a successful answer, by kind

    @property
    def worst_read(self) -> float:
        """Return the longest pause of any kind of read."""
        return max(self.reads.values(), default=0.0)


class Pulse:
    """Sends to every room and reads of every kind at fixed rates, regardless of their outcome."""

    def __init__(
        self, url: str, clients: Sequence[ChaosClient], rooms: Sequence[str], ledger: Ledger, clock: Clock
    ) -> None:
        self.read_failures = 0
        self._url = url
        self._clients = clients
        self._rooms = rooms
        self._ledger = ledger
        self._clock = clock
        self._answered: dict[str, list[float]] = {}
        self._stop = asyncio.Event()
        self._reads: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Send and read no more."""
        self._stop.set()

    async def run(self) -> None:
        """Return once stopped and every read has ended."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(READ_TIMEOUT_S)) as http:
            paths = {
                "messages": f"/v1/chatrooms/{self._rooms[0]}/messages?limit=1",
                "notifications": "/v1/notifications?limit=1",
                "prices": "/v1/market/prices",
            }
            await asyncio.gather(self._send(), *(self._read(http, kind, path) for kind, path in paths.items()))
            await asyncio.gather(*self._reads)

    def pauses(self, since_s: float, until_s: float) -> Pauses:
        """Return the longest pauses between two times."""
        by_room = {room: self._acks(f"room:{room}") for room in self._rooms}
        every = sorted(itertools.chain.from_iterable(by_room.values()))
        return Pauses(
            longest_pause(every, since_s, until_s),
            max(longest_pause(times, since_s, until_s) for times in by_room.values()),
            {kind: longest_pause(sorted(times), since_s, until_s) for kind, times in self._answered.items()},
        )

    def _acks(self, channel: str) -> list[float]:
        acked = self._ledger.acked.get(channel, {}).values()
        return sorted(at_s for acks in acked for at_s, _ in acks)

    async def _send(self) -> None:
        pause_s = 1 / SENDS_PER_ROOM_S / len(self._rooms)
        for number in itertools.count():
            if self._stop.is_set():
                return
            client = self._clients[number % len(self._clients)]
            room = self._rooms[number // len(self._clients) % len(self._rooms)]
            await client.send(f"p{number}", room, f"p{number}")
            await asyncio.sleep(pause_s)

    async def _read(self, http: aiohttp.ClientSession, kind: str, path: str) -> None:
        self._answered[kind] = []
        while not self._stop.is_set():
            task = asyncio.create_task(self._read_once(http, kind, path))
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)
            await asyncio.sleep(1 / READS_EACH_S)

    async def _read_once(self, http: aiohttp.ClientSession, kind: str, path: str) -> None:
        headers = {"Authorization": f"Bearer {mint(READER)}"}
        try:
            async with http.get(f"{self._url}{path}", headers=headers) as response:
                await response.read()
                succeeded = response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            succeeded = False
        if succeeded:
            self._answered[kind].append(self._clock())
        else:
            self.read_failures += 1


def longest_pause(times_s: Sequence[float], since_s: float, until_s: float) -> float:
    """Return the longest time between two successes, the borders included."""
    within = [at_s for at_s in times_s if since_s <= at_s <= until_s]
    return max(later - earlier for earlier, later in pairwise([since_s, *within, until_s]))
