"""The deployed shape, gateways behind HAProxy, with chatting clients: the basis of the demonstrations."""

import argparse
import asyncio
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.operations.trader import Trader
from tests.support.balancer import START_TIMEOUT_S, STOP_TIMEOUT_S, BalancedGateway, Balancer
from tests.support.live_client import RestClient
from tests.support.local_system import LocalSystem
from tests.support.tokens import SECRET
from tests.support.waiting import until, until_async

ROOMS_EACH = 2
SETTLE_TIMEOUT_S = 60.0
OPEN_AT_ONCE = 50
LIMITS = {"JWT_SECRET": SECRET, "RATE_LIMIT_MESSAGES_PER_MINUTE": "100000"}


@dataclass
class Stage:
    """The clients, the gateways, and their events."""

    balancer: Balancer
    gateways: list[BalancedGateway]
    rooms: list[str]
    tasks: asyncio.TaskGroup
    http: aiohttp.ClientSession
    traders: list[Trader] = field(default_factory=list)
    reading: list["asyncio.Task[None]"] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    has_inbox: bool = False
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def operator(self) -> RestClient:
        """Return a client that reads everything through the load balancer."""
        return RestClient(self.balancer.url, "operator")

    async def add(self, gateway: BalancedGateway) -> None:
        """Start a gateway and wait until the load balancer sends clients to it, as to every other ready one."""
        gateway.start()
        await asyncio.to_thread(gateway.wait_until, gateway.is_ready, START_TIMEOUT_S)
        running = [one for one in self.gateways if one.is_running()]
        self.balancer.announce(*running)

        def are_all_up() -> bool:
            return self.balancer.gateways_up() == sum(one.is_ready() for one in running)

        await until_async(lambda: asyncio.to_thread(are_all_up), bool, START_TIMEOUT_S)

    async def scale_away(self, gateway: BalancedGateway) -> float:
        """Stop a gateway as a scheduler does and return the duration of its drain."""
        started_s = time.monotonic()
        gateway.signal(signal.SIGTERM)
        await until(lambda: not gateway.is_running(), STOP_TIMEOUT_S)
        self.balancer.announce(*(one for one in self.gateways if one.is_running()))
        return time.monotonic() - started_s

    async def make_rooms(self, count: int) -> None:
        """Create the rooms of the clients."""
        self.rooms += [await self.operator.create_room(f"Room {number}") for number in range(count)]

    async def come(self, count: int) -> None:
        """Connect more clients, some at a time."""
        first = len(self.traders)
        for number in range(first, first + count):
            rooms = [self.rooms[(number + step) % len(self.rooms)] for step in range(ROOMS_EACH)]
            name, url = f"trader-{number}", self.balancer.url
            trader = Trader(name, url, rooms, self.symbols, has_inbox=self.has_inbox)
            self.traders.append(trader)
            self.reading.append(self.tasks.create_task(trader.run(self.http)))
            if number % OPEN_AT_ONCE == 0:
                await self.all_connected()
        await self.all_connected()

    async def all_connected(self) -> None:
        """Return once every client is connected."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await asyncio.gather(*(trader.connected.wait() for trader in self.traders))

    async def talk(self, rate: float, stop: asyncio.Event) -> None:
        """Send `rate` messages per second from alternating clients until `stop`, then await the last acks."""
        async with asyncio.TaskGroup() as sending:
            for number in self._numbers:
                if stop.is_set():
                    return
                trader = self.traders[number % len(self.traders)]
                sending.create_task(trader.send(f"m-{number}"))
                await asyncio.sleep(1 / rate)

    def show(self, what: str) -> None:
        """Print the distribution of sockets."""
        counts = [
            f"{gateway.name} {gateway.connections() if gateway.is_running() else '-':>4}" for gateway in self.gateways
        ]
        print(f"  {what:42} {'   '.join(counts)}", flush=True)


@asynccontextmanager
async def on_stage(
    balancer: Balancer, gateways: list[BalancedGateway], symbols: tuple[str, ...] = (), *, has_inbox: bool = False
) -> AsyncIterator[Stage]:
    """Yield a stage with the gateways, and with those that are added; at the end clients and gateways stop."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
            asyncio.TaskGroup() as tasks,
        ):
            stage = Stage(balancer, gateways, [], tasks, http, symbols=symbols, has_inbox=has_inbox)
            yield stage
            for reading in stage.reading:
                reading.cancel()
    finally:
        for gateway in gateways:
            gateway.stop(STOP_TIMEOUT_S)


@asynccontextmanager
async def staged(directory: Path, system: LocalSystem, gateways: int, rooms: int) -> AsyncIterator[Stage]:
    """Yield a load balancer and gateways, the first one started, in front of a system without gateways, and rooms."""
    environment = {"AMQP_URL": system.entries()["AMQP_URL"], **LIMITS}
    with Balancer(directory) as balancer:
        processes = [BalancedGateway(directory, balancer, number + 1, environment) for number in range(gateways)]
        async with on_stage(balancer, processes) as stage:
            await stage.add(processes[0])
            await stage.make_rooms(rooms)
            yield stage


def demonstrate(
    run: Callable[[argparse.Namespace, Path, LocalSystem], Coroutine[Any, Any, int]],
    description: str | None,
    **defaults: float,
) -> None:
    """Parse the command line and `run` on a separate system; exit with 1 on faults. `defaults` sets options."""
    words = {"seconds": "of load before, between and after what changes", "rate": "messages a second"}
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        kind = int if name in ("clients", "rooms") else float
        parser.add_argument(f"--{name}", type=kind, default=default, help=words.get(name))
    arguments = parser.parse_args()
    settings = {"GATEWAYS": "0", "CHAT_SERVICES": "2", **LIMITS}
    with tempfile.TemporaryDirectory() as name, LocalSystem(Path(name), settings) as system:
        faults = asyncio.run(run(arguments, Path(name), system))
    print(f"faults: {faults}")
    sys.exit(1 if faults else 0)
