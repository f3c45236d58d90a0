"""A client of market_feed: queries like a gateway, publishes ticks like an internal service with plain aio-pika."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import msgspec

from shared.bus.batching import split_lines
from shared.bus.bus import Bus
from shared.bus.consumer import Line
from shared.bus.delivery import Delivery
from shared.bus.topology import (
    DEAD,
    DELIVERIES,
    EVENTS,
    MARKET_QUERY,
    MARKET_TICKS,
    NOTIFIER_TICKS,
    SHARDS,
    shard_key,
)
from shared.commands.command import Caller
from shared.commands.market import (
    AppliedTick,
    AppliedTicks,
    CandleData,
    Candles,
    GetCandles,
    GetPrices,
    GetSymbols,
    Interval,
    Prices,
    SymbolData,
    Symbols,
)
from shared.ids import Prefix, new_id

Frame = dict[str, Any]


class MarketClient:
    """Records every delivery and every applied tick; queries and publishes."""

    def __init__(self, bus: Bus, channel: aio_pika.abc.AbstractChannel) -> None:
        self.frames: list[Frame] = []
        self.applied: list[AppliedTick] = []
        self._bus = bus
        self._channel = channel

    # Publishing -----------------------------------------------------------------------------------------------------

    async def publish(self, data: Any, event_id: str | None = None, **more: Any) -> None:
        """Publish a `market.tick` event; NaN is encoded as Python does."""
        event = {"specversion": "1.0", "id": event_id or new_id(Prefix.COMMAND), "source": "/tests"}
        await self.publish_body(json.dumps({**event, "type": "market.tick", "data": data, **more}).encode())

    async def publish_body(self, body: bytes) -> None:
        """Publish any body as a `market.tick`, persistent and confirmed."""
        exchange = await self._channel.get_exchange(EVENTS, ensure=False)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await exchange.publish(message, "market.tick")

    # Queries --------------------------------------------------------------------------------------------------------

    def _head(self) -> dict[str, Any]:
        return {
            "id": new_id(Prefix.COMMAND),
            "deadline_ms": self._bus.deadline_ms(),
            "caller": Caller(user_id="tester"),
        }

    async def prices(self, *symbols: str) -> Prices:
        """Return the latest prices of these symbols, or of all."""
        return await self._bus.request(MARKET_QUERY, GetPrices(**self._head(), symbols=symbols or None), Prices)

    async def symbols(self) -> tuple[SymbolData, ...]:
        """Return the known symbols."""
        return (await self._bus.request(MARKET_QUERY, GetSymbols(**self._head()), Symbols)).symbols

    async def candles(self, symbol: str, interval: Interval, **more: Any) -> tuple[CandleData, ...]:
        """Return candles."""
        query = GetCandles(**self._head(), symbol=symbol, interval=interval, **more)
        return (await self._bus.request(MARKET_QUERY, query, Candles)).candles

    # Observations ---------------------------------------------------------------------------------------------------

    def of(self, symbol: str) -> list[Frame]:
        """Return the data of a symbol's frames in order of arrival."""
        return [frame["data"] for frame in self.frames if frame["data"]["symbol"] == symbol]

    def applied_of(self, symbol: str) -> list[AppliedTick]:
        """Return the applied ticks of a symbol in order of arrival, each once."""
        return list({tick.seq: tick for tick in self.applied if tick.symbol == symbol}.values())

    async def dead_letters(self) -> list[tuple[str, bytes]]:
        """Remove and return the dead letters of `market.ticks`: reason and body."""
        queue = await self._channel.get_queue(DEAD, ensure=False)
        found: list[tuple[str, bytes]] = []
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            if message.headers["queue"] == MARKET_TICKS:
                found.append((str(message.headers["reason"]), message.body))
        return found

    def has_received(self, frames: int) -> Callable[[], bool]:
        """Return a condition: `count` frames in total have arrived."""
        return lambda: len(self.frames) >= frames

    def has_applied(self, ticks: int) -> Callable[[], bool]:
        """Return a condition: `count` ticks in total were announced."""
        return lambda: len(self.applied) >= ticks

    def record_deliveries(self, body: bytes) -> None:
        """Record a body of deliveries."""
        for line in split_lines(body):
            delivery = Delivery.from_line(line)
            if delivery.channel.startswith("market:"):
                frame = json.loads(delivery.frame)
                assert (delivery.key, delivery.position) == (frame["data"]["symbol"], frame["data"]["seq"])
                self.frames.append(frame)

    async def record_applied(self, lines: list[Line]) -> None:
        """Record lines of `notifier.ticks`."""
        for line in lines:
            self.applied.extend(msgspec.json.decode(line.body, type=AppliedTicks).ticks)


@asynccontextmanager
async def market_client(amqp_url: str) -> AsyncIterator[MarketClient]:
    """Yield a client that records everything from now on."""
    bus = Bus(amqp_url, new_id(Prefix.NODE))
    async with await aio_pika.connect(amqp_url) as connection:
        client = MarketClient(bus, await connection.channel())
        queue = bus.private_queue("gateway", client.record_deliveries)
        queue.bindings.update((DELIVERIES, shard_key(shard)) for shard in range(SHARDS))
        async with bus:
            await bus.wait_connected()
            await bus.consume(NOTIFIER_TICKS, client.record_applied)
            yield client
