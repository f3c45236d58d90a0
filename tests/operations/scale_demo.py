"""Scale gateways behind HAProxy while clients talk: `make scale-demo`.

Two gateways and a load; a third one is added, and half as many clients again come; then the first one is scaled away,
its clients come back elsewhere and resume. Then: every acked message is in the history once, and every socket got every
message of its rooms once, in seq order. Prints the counts; exits with 1 if anything is lost, repeated or out of order.
"""

import argparse
import asyncio
import itertools
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.chaos.settle import history
from tests.operations.trader import Trader
from tests.support.balancer import START_TIMEOUT_S, STOP_TIMEOUT_S, Balancer, GatewayProcess
from tests.support.live_client import Caller
from tests.support.local_system import LocalSystem
from tests.support.tokens import SECRET
from tests.support.waiting import until

ROOMS_EACH = 2
SETTLE_TIMEOUT_S = 60.0
OPEN_AT_ONCE = 50
LIMITS = {"JWT_SECRET": SECRET, "RATE_LIMIT_MESSAGES_PER_MINUTE": "100000"}


@dataclass
class Demo:
    """The clients, the gateways, and what happened to them."""

    balancer: Balancer
    gateways: list[GatewayProcess]
    rooms: list[str]
    tasks: asyncio.TaskGroup
    http: aiohttp.ClientSession
    traders: list[Trader] = field(default_factory=list)
    reading: list["asyncio.Task[None]"] = field(default_factory=list)

    async def add(self, gateway: GatewayProcess) -> None:
        """Start a gateway and let the balancer find it."""
        gateway.start()
        await asyncio.to_thread(gateway.wait_until, gateway.is_ready, START_TIMEOUT_S)
        running = [one for one in self.gateways if one.is_running()]
        self.balancer.announce(*running)
        await until(lambda: self.balancer.gateways_up() == len(running), START_TIMEOUT_S)

    async def scale_away(self, gateway: GatewayProcess) -> float:
        """Stop a gateway as a scheduler does; returns how long it took to leave."""
        started_s = time.monotonic()
        gateway.signal(signal.SIGTERM)
        await until(lambda: not gateway.is_running(), STOP_TIMEOUT_S)
        self.balancer.announce(*(one for one in self.gateways if one.is_running()))
        return time.monotonic() - started_s

    async def come(self, count: int) -> None:
        """Let so many more clients come, some at a time."""
        first = len(self.traders)
        for number in range(first, first + count):
            rooms = [self.rooms[(number + step) % len(self.rooms)] for step in range(ROOMS_EACH)]
            trader = Trader(f"trader-{number}", self.balancer.url, rooms)
            self.traders.append(trader)
            self.reading.append(self.tasks.create_task(trader.run(self.http)))
            if number % OPEN_AT_ONCE == 0:
                await self.all_connected()
        await self.all_connected()

    async def all_connected(self) -> None:
        """Return once everybody is where they want to be."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await asyncio.gather(*(trader.connected.wait() for trader in self.traders))

    async def talk(self, rate: float, stop: asyncio.Event) -> None:
        """`rate` messages a second from one after another, until `stop`; then await the last acks."""
        async with asyncio.TaskGroup() as sending:
            for number in itertools.count():
                if stop.is_set():
                    return
                trader = self.traders[number % len(self.traders)]
                sending.create_task(trader.send(f"m-{number}"))
                await asyncio.sleep(1 / rate)

    def show(self, what: str) -> None:
        """Print where the sockets are."""
        counts = [
            f"{gateway.name} {gateway.connections() if gateway.is_running() else '-':>4}" for gateway in self.gateways
        ]
        print(f"  {what:42} {'   '.join(counts)}", flush=True)


async def play(demo: Demo, arguments: argparse.Namespace) -> float:
    """The scenes; returns the seconds that the leaving gateway took."""
    first, second, third = demo.gateways
    await demo.add(second)
    await demo.come(arguments.clients)
    demo.show("two gateways")
    stop = asyncio.Event()
    talking = demo.tasks.create_task(demo.talk(arguments.rate, stop))
    await asyncio.sleep(arguments.seconds)
    demo.show("under load")
    await demo.add(third)
    await demo.come(arguments.clients // 2)
    demo.show(f"{third.name} added, more clients")
    await asyncio.sleep(arguments.seconds)
    left_after_s = await demo.scale_away(first)
    await demo.all_connected()
    demo.show(f"{first.name} scaled away")
    await asyncio.sleep(arguments.seconds)
    stop.set()
    await talking
    return left_after_s


async def run(arguments: argparse.Namespace, directory: Path, system: LocalSystem) -> int:
    """One run; returns the number of faults."""
    environment = {"AMQP_URL": system.entries()["AMQP_URL"], **LIMITS}
    async with AsyncExitStack() as stack:
        balancer = stack.enter_context(Balancer(directory))
        gateways = [GatewayProcess(directory, balancer, number, environment) for number in (1, 2, 3)]
        for gateway in gateways:
            stack.callback(gateway.stop, STOP_TIMEOUT_S)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        async with asyncio.TaskGroup() as tasks:
            demo = Demo(balancer, gateways, [], tasks, http)
            operator = Caller(balancer.url, "operator")
            demo.rooms += await create_rooms(demo, operator, arguments.rooms)
            left_after_s = await play(demo, arguments)
            histories = {room: [item.seq for item in await history(operator, room)] for room in demo.rooms}
            await settle(demo.traders, histories)
            for reading in demo.reading:
                reading.cancel()
    return report(demo.traders, histories, left_after_s)


async def create_rooms(demo: Demo, operator: Caller, count: int) -> list[str]:
    """New rooms, made through the first gateway that is there."""
    await demo.add(demo.gateways[0])
    return [await operator.create_room(f"Room {number}") for number in range(count)]


async def settle(traders: Iterable[Trader], histories: dict[str, list[int]]) -> None:
    """Wait until everyone has everything, or for a minute; what is missing then is counted."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if all(len(seqs) >= len(histories[room]) for trader in traders for room, seqs in trader.seqs.items()):
            return
        await asyncio.sleep(0.1)


def report(traders: list[Trader], histories: dict[str, list[int]], left_after_s: float) -> int:
    """Print the counts; returns the faults."""
    acked = [place for trader in traders for place in trader.acked.values()]
    logs = [(seqs, histories[room]) for trader in traders for room, seqs in trader.seqs.items()]
    faults = {
        "acked but not stored": sum(seq not in set(histories[room]) for room, seq in acked),
        "acked under one seq twice": len(acked) - len(set(acked)),
        "stored without being acked": abs(sum(map(len, histories.values())) - len(acked)),
        "rooms with a gap in seq": sum(seqs != list(range(1, len(seqs) + 1)) for seqs in histories.values()),
        "deliveries lost": sum(len(set(stored) - set(got)) for got, stored in logs),
        "deliveries repeated": sum(len(got) - len(set(got)) for got, _ in logs),
        "deliveries out of order": sum(
            later <= earlier for got, _ in logs for earlier, later in itertools.pairwise(got)
        ),
        "resumptions not recovered": sum(trader.not_recovered for trader in traders),
        "upgrades refused": sum(trader.refused for trader in traders),
    }
    closes = Counter(code for trader in traders for code in trader.closes)
    counts = {
        "clients": len(traders),
        "messages acked": len(acked),
        "deliveries": sum(len(got) for got, _ in logs),
        "sockets moved, by close code": dict(closes),
        "seconds until the gateway had left": round(left_after_s, 1),
    }
    for name, count in {**counts, **faults}.items():
        print(f"  {name:42} {count}")
    unexpected = sum(count for code, count in closes.items() if code != 1012)
    return sum(faults.values()) + unexpected


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="of load before, between and after the changes")
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--rooms", type=int, default=30)
    parser.add_argument("--rate", type=float, default=60, help="messages a second")
    arguments = parser.parse_args()
    settings = {"GATEWAYS": "0", "CHAT_SERVICES": "2", **LIMITS}
    with tempfile.TemporaryDirectory() as name, LocalSystem(Path(name), settings) as system:
        faults = asyncio.run(run(arguments, Path(name), system))
    print(f"faults: {faults}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
