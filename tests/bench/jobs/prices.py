"""Sockets that subscribe to prices. Each price carries its tick's time, so its age is known to 1 ms."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.times import from_iso
from tests.bench.client import BenchSocket
from tests.bench.crowd import Crowd
from tests.bench.dialects import Realtime
from tests.bench.marks import now_us
from tests.bench.tally import MeasureWindow, Tally
from tests.bench.wire import BenchFrame
from tests.bench.worker import JobPipe, sleep_until

CACHED_MAX = 20_000
SETTLE_S = 1.0

_PRICE = b'{"type":"market:price"'
_SYMBOL = re.compile(rb'"symbol":"([^"]+)"')
_SEQ = re.compile(rb'"seq":(\d+)')
_TIME = re.compile(rb'"timestamp":"([^"]+)"')


class _Price:
    """One price."""

    __slots__ = ("sent_us", "seq", "symbol")

    def __init__(self, payload: bytes, wall_ahead_us: int) -> None:
        symbol, seq, at = _SYMBOL.search(payload), _SEQ.search(payload), _TIME.search(payload)
        assert symbol is not None and seq is not None and at is not None
        self.symbol = symbol[1]
        self.seq = int(seq[1])
        self.sent_us = from_iso(at[1].decode()) * 1000 - wall_ahead_us


class _PriceParser:
    """Parses each price once, although every socket receives it."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Price] = {}
        self._wall_ahead_us = time.time_ns() // 1000 - now_us()

    def __call__(self, payload: bytes) -> _Price:
        price = self._known.get(payload)
        if price is None:
            if len(self._known) > CACHED_MAX:
                self._known.clear()
            price = self._known[payload] = _Price(payload, self._wall_ahead_us)
        return price


def _ear(parse: _PriceParser, tally: Tally, window: MeasureWindow) -> Callable[[BenchSocket, BenchFrame], None]:
    """Check one socket: prices of a symbol only ever get newer."""
    newest: dict[bytes, int] = {}

    def take(client: BenchSocket, frame: BenchFrame) -> None:
        if not frame.payload.startswith(_PRICE):
            return
        price, arrived_us = parse(frame.payload), now_us()
        before = newest.get(price.symbol, -1)
        tally.repeated += price.seq == before
        tally.disordered += price.seq < before
        newest[price.symbol] = price.seq
        tally.received += 1
        if window.measure_us <= arrived_us < window.until_us:
            tally.delivered += 1
            tally.latencies.add(max(arrived_us - price.sent_us, 0))

    return take


@dataclass
class PriceLoad:
    """`sockets` sockets, each on all `symbols`."""

    name: str
    host: str
    port: int
    sockets: int
    symbols: Sequence[str]
    max_rate: int
    first_address: int = 2

    async def run(self, link: JobPipe) -> Tally:
        """Join and receive."""
        crowd = Crowd(self.host, self.port, self.first_address, 30)
        target = {"channel": "market", "symbols": list(self.symbols), "maxRate": self.max_rate}
        await crowd.open(Realtime(f"trader-{self.first_address}-{number}", [target]) for number in range(self.sockets))
        if crowd.failed:
            raise ConnectionError(f"not all joined: {dict(crowd.failed)}")
        link.ready(f"{len(crowd.clients)} sockets")
        window = await link.window()
        tally, parse = Tally(), _PriceParser()
        for client in crowd.clients:
            client.on_frame = _ear(parse, tally, window)
        while (now := now_us()) < window.until_us:
            link.counts["deliveries"] = tally.received
            await sleep_until(min(now + 500_000, window.until_us), now)
        await link.finish()
        await asyncio.sleep(SETTLE_S)
        tally.closed = crowd.closed
        crowd.leave()
        return tally
