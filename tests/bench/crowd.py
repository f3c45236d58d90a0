"""The clients of one process: opened with limited concurrency from several loopback addresses, kept alive, counted."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterable
from enum import Enum, auto

from tests.bench.client import BenchSocket, Dialect
from tests.bench.tally import Latencies

JOIN_TIMEOUT_S = 60.0
ADDRESSES = 8  # with 28,000 ports each
HEARTBEAT_S = 30.0
RETRY_AFTER_S = (0.5, 2.0)
_PING = b'{"type":"ping"}'


class ConnectOutcome(Enum):
    """The result of an attempt. A refused client (503) retries as a real client does."""

    LISTENS = auto()
    TURNED_AWAY = auto()
    FAILED = auto()


class Crowd:
    """The clients of one server. `first_address` separates the addresses of several processes."""

    def __init__(self, host: str, port: int, first_address: int, concurrency: int) -> None:
        self.host = host
        self.port = port
        self.clients: list[BenchSocket] = []
        self.joining = Latencies()
        self.closed: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.turned_away = 0
        self._addresses = itertools.cycle(f"127.0.0.{first_address + number}" for number in range(ADDRESSES))
        self._concurrency = concurrency

    async def open(self, dialects: Iterable[Dialect]) -> None:
        """Open all clients, `concurrency` at a time, and return when each is subscribed or has failed."""
        waiting = iter(dialects)

        async def opener() -> None:
            for dialect in waiting:
                opened = await self.open_one(dialect)
                while opened is ConnectOutcome.TURNED_AWAY:
                    await asyncio.sleep(random.uniform(*RETRY_AFTER_S))
                    opened = await self.open_one(dialect)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._concurrency):
                tasks.create_task(opener())

    async def open_one(self, dialect: Dialect) -> ConnectOutcome:
        """Open one client."""
        client = BenchSocket(self.host, self.port, dialect)
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: client, self.host, self.port, local_addr=(next(self._addresses), 0)
                )
                await client.ready
        except (OSError, TimeoutError) as error:
            client.leave()
            reason = str(error) or type(error).__name__
            if " 503 " in reason:
                self.turned_away += 1
                return ConnectOutcome.TURNED_AWAY
            self.failed[reason] += 1
            return ConnectOutcome.FAILED
        client.on_lost = self._lost
        self.clients.append(client)
        self.joining.add(client.joined_us - client.begun_us)
        return ConnectOutcome.LISTENS

    def _lost(self, client: BenchSocket) -> None:
        self.closed[str(client.close_code)] += 1

    async def keep_alive(self) -> None:
        """Ping as RealtimeClient does, each client every 30 s, spread evenly, until cancelled."""
        while True:
            clients = list(self.clients)
            pause_s = HEARTBEAT_S / 100
            for turn in range(100):
                for client in clients[turn::100]:
                    if client.is_open:
                        client.send(_PING)
                await asyncio.sleep(pause_s)

    def leave(self) -> None:
        """Drop all clients."""
        for client in self.clients:
            client.leave()
