"""The throughput of market_feed: ticks from RabbitMQ, counted, aggregated to candles, announced, journalled, stored.

    python -m tests.bench.bench_market [--rate 20000] [--symbols 500] [--ticks-per-event 200] [--seconds 30]

Starts a broker, a database, one market_feed and one producer on this machine, prints a line every few seconds, and
checks at the end that every tick took effect exactly once. The queue must not grow. A separate process consumes the
announced ticks as notifier does. Exits with 1 if ticks are missing or the queue grew.
"""

import argparse
import asyncio
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import aio_pika
import aiohttp
import msgspec

from shared.bus.bus import Bus
from shared.bus.topology import EVENTS, MARKET_QUERY, MARKET_TICKS, NOTIFIER_TICKS
from shared.commands.command import Caller
from shared.commands.market import Candles, GetCandles, GetPrices, Interval, Prices
from shared.ids import Prefix, new_id
from shared.times import now_ms
from tests.support.infrastructure import Infrastructure
from tests.support.service_process import Process

SAMPLE_S = 3.0
DRAIN_TIMEOUT_S = 60.0
GROWN_SECONDS = 1.0  # a final queue of more than this much input counts as growth


class Arguments(argparse.Namespace):
    """The command line."""

    role: str
    rate: int
    symbols: int
    ticks_per_event: int
    seconds: float


def parse_arguments() -> Arguments:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", nargs="?", default="bench", choices=["bench", "produce", "drain"])
    parser.add_argument("--rate", type=int, default=20_000, help="ticks a second")
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--ticks-per-event", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    return parser.parse_args(namespace=Arguments())


# The producer and the reader, each a separate process ------------------------------------------------------------


class Fields(msgspec.Struct):
    """A tick as published."""

    symbol: str
    price: float
    bid: float
    ask: float
    volume: float
    timestamp: str


class TickMessage(msgspec.Struct):
    """An event as published."""

    id: str
    data: list[Fields]
    specversion: str = "1.0"
    source: str = "/bench"
    type: str = "market.tick"


async def produce(arguments: Arguments) -> None:
    """Publish at the given rate with confirms, and print the number of ticks and the CPU seconds."""
    chance = Random(1)
    prices = [chance.uniform(1, 1000) for _ in range(arguments.symbols)]
    events = round(arguments.rate * arguments.seconds / arguments.ticks_per_event)
    async with await aio_pika.connect(os.environ["AMQP_URL"]) as connection:
        exchange = await (await connection.channel()).get_exchange(EVENTS)
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as confirms:
            for number in range(events):
                due_s = started_s + number * arguments.ticks_per_event / arguments.rate
                if (wait_s := due_s - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)
                body = msgspec.json.encode(TickMessage(f"bench-{number}", _ticks(arguments, number, prices, chance)))
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                confirms.create_task(exchange.publish(message, "market.tick"))
        elapsed_s = time.monotonic() - started_s
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{events * arguments.ticks_per_event} {elapsed_s:.3f} {usage.ru_utime + usage.ru_stime:.3f}")


def _ticks(arguments: Arguments, number: int, prices: list[float], chance: Random) -> list[Fields]:
    seconds, milliseconds = divmod(now_ms(), 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z"
    ticks = []
    for place in range(arguments.ticks_per_event):
        symbol = (number * arguments.ticks_per_event + place) % arguments.symbols
        prices[symbol] = price = round(prices[symbol] * (1 + chance.uniform(-1e-4, 1e-4)), 5)
        ticks.append(Fields(f"SYM{symbol:04d}", price, round(price - 0.0001, 5), round(price + 0.0001, 5), 1.0, stamp))
    return ticks


async def drain() -> None:
    """Consume the announced ticks until cancelled."""
    async with await aio_pika.connect(os.environ["AMQP_URL"]) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(NOTIFIER_TICKS, ensure=False)
        await queue.consume(lambda message: asyncio.sleep(0), no_ack=True)
        await asyncio.Event().wait()


# The bench ---------------------------------------------------------------------------------------------------------


class PriceProbe:
    """Observes the queue, the service and the processes from outside."""

    def __init__(self, market: Process, amqp_url: str, processes: dict[str, int]) -> None:
        self._market = market
        self._amqp_url = amqp_url
        self._processes = processes
        self._began = {name: _cpu_s(pid) for name, pid in processes.items()}

    async def waiting(self) -> int:
        """Return the number of undelivered messages in the queue."""
        async with await aio_pika.connect(self._amqp_url) as connection:
            queue = await (await connection.channel()).declare_queue(MARKET_TICKS, passive=True)
            return int(queue.declaration_result.message_count or 0)

    async def metrics(self) -> dict[str, float]:
        """Return the service's metrics without labels, and amqp's market_ticks_total as `ticks`."""
        async with aiohttp.ClientSession() as http, http.get(f"{self._market.admin_url}/metrics") as response:
            lines = [line.rpartition(" ") for line in (await response.text()).splitlines() if line[:1] != "#"]
        found = {name: float(value) for name, _, value in lines if "{" not in name}
        ticks = [float(value) for name, _, value in lines if name.startswith('market_ticks_total{source="amqp"')]
        return {**found, "ticks": sum(ticks)}

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each process with its children since the start."""
        return {name: _cpu_s(pid) - self._began[name] for name, pid in self._processes.items()}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def bench(arguments: Arguments, infrastructure: Infrastructure) -> bool:
    """Run the benchmark, print it, and return True if the service kept up."""
    environment = {
        "AMQP_URL": infrastructure.amqp_url,
        "MONGODB_URI": infrastructure.mongodb_uri,
        "MONGODB_DATABASE": "bench",
        "MARKET_SOURCE": "amqp",
        "LOG_LEVEL": "warning",
    }
    market = Process("market_feed", environment)
    await market.start()
    command = [sys.executable, "-m", "tests.bench.bench_market"]
    options = [
        f"--rate={arguments.rate}",
        f"--symbols={arguments.symbols}",
        f"--ticks-per-event={arguments.ticks_per_event}",
        f"--seconds={arguments.seconds}",
    ]
    spawn = asyncio.create_subprocess_exec
    drainer = await spawn(*command, "drain", env={**os.environ, **environment})
    producer = await spawn(
        *command, "produce", *options, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    processes = {
        "market_feed": market.pid,
        "broker": infrastructure.broker.pid,
        "database": infrastructure.database.pid,
    }
    try:
        probe = PriceProbe(market, infrastructure.amqp_url, processes)
        grew = await watch(arguments, probe, producer)
        assert producer.stdout is not None
        ticks, elapsed_s, producer_cpu_s = (await producer.stdout.read()).split()
        counts = await wait_for_all(probe, int(ticks))
        cpu_s = probe.cpu_s()
        print(
            f"\n{int(ticks):,} ticks sent in {float(elapsed_s):.1f} s ({int(ticks) / float(elapsed_s):,.0f}/s); ",
            end="",
        )
        print(f"{counts:,.0f} counted")
        for name, seconds in {**cpu_s, "producer": float(producer_cpu_s)}.items():
            print(f"  {name:<12} {seconds:6.1f} CPU s, {1e6 * seconds / int(ticks):6.1f} per million ticks")
        right = await check(arguments, infrastructure.amqp_url, int(ticks))
        started_s = time.monotonic()
        code = await market.end(signal.SIGTERM)
        print(f"  stopped in {time.monotonic() - started_s:.2f} s with exit code {code}")
        return right and not grew and code == 0
    finally:
        for process in (producer, drainer):
            if process.returncode is None:
                process.kill()
                await process.wait()
        await market.end(signal.SIGKILL)


async def watch(arguments: Arguments, probe: PriceProbe, producer: asyncio.subprocess.Process) -> bool:
    """Print a line every few seconds while the producer runs, and return True if the queue grew."""
    print("    s   ticks/s   queue  unjournalled  candles to write  mean journal write  CPU of market_feed")
    started_s = last_s = time.monotonic()
    before, cpu_before_s = await probe.metrics(), probe.cpu_s()["market_feed"]
    waiting = 0
    ending = asyncio.create_task(producer.wait())
    while not ending.done():
        await asyncio.wait({ending}, timeout=SAMPLE_S)
        now_s = time.monotonic()
        found, waiting, cpu_s = await probe.metrics(), await probe.waiting(), probe.cpu_s()["market_feed"]
        passed_s = now_s - last_s
        writes = found["market_commit_seconds_count"] - before["market_commit_seconds_count"]
        commit_s = (found["market_commit_seconds_sum"] - before["market_commit_seconds_sum"]) / max(writes, 1)
        print(
            f"{now_s - started_s:5.0f} {(found['ticks'] - before['ticks']) / passed_s:9,.0f} {waiting:7,}"
            f" {found['market_pending_ticks']:13,.0f} {found['market_backlog']:17,.0f} {1000 * commit_s:16.1f} ms"
            f" {100 * (cpu_s - cpu_before_s) / passed_s:17.0f} %"
        )
        last_s, before, cpu_before_s = now_s, found, cpu_s
    return waiting * arguments.ticks_per_event > arguments.rate * GROWN_SECONDS


async def wait_for_all(probe: PriceProbe, ticks: int) -> float:
    """Return the number of counted ticks once it is complete or the time is over."""
    deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
    while True:
        counted = (await probe.metrics())["ticks"]
        if counted >= ticks or time.monotonic() > deadline_s:
            return counted
        await asyncio.sleep(0.2)


async def check(arguments: Arguments, amqp_url: str, ticks: int) -> bool:
    """Return True if the volumes of quotes and candles account for every tick once."""
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        await bus.wait_connected()

        def head() -> dict[str, Any]:
            return {"id": new_id(Prefix.COMMAND), "deadline_ms": bus.deadline_ms(), "caller": Caller(user_id="bench")}

        prices = await bus.request(MARKET_QUERY, GetPrices(**head()), Prices)
        quoted = sum(price.volume or 0 for price in prices.prices)
        candled = dict.fromkeys(Interval, 0.0)
        for price in prices.prices:
            for interval in Interval:
                query = GetCandles(**head(), symbol=price.symbol, interval=interval)
                found = await bus.request(MARKET_QUERY, query, Candles)
                candled[interval] += sum(candle.volume for candle in found.candles)
    parts = ", ".join(f"{interval.value} {volume:,.0f}" for interval, volume in candled.items())
    print(f"  volumes (1 per tick): quotes of {len(prices.prices)} symbols {quoted:,.0f}; candles {parts}")
    return len(prices.prices) == arguments.symbols and {quoted, *candled.values()} == {float(ticks)}


def main() -> int:
    """Run the role given on the command line."""
    arguments = parse_arguments()
    if arguments.role == "produce":
        asyncio.run(produce(arguments))
        return 0
    if arguments.role == "drain":
        asyncio.run(drain())
        return 0
    with tempfile.TemporaryDirectory() as directory, Infrastructure(Path(directory)) as infrastructure:
        kept_up = asyncio.run(bench(arguments, infrastructure))
    print("kept up, every tick took effect once" if kept_up else "FAILED: did not keep up, or ticks are missing")
    return 0 if kept_up else 1


if __name__ == "__main__":
    sys.exit(main())
