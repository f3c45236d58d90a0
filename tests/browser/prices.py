"""Prices for screenshots: half a day of history, then live prices, published as an internal service would."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika

from market_feed.quotes import Tick
from market_feed.sources.sim import INSTRUMENTS, Walk
from shared.times import now_ms
from tests.support.events import EXCHANGE, cloud_event

HISTORY_S = 12 * 3600
HISTORY_STEP_S = 30.0
EVENT_TICKS = 500
LIVE_STEP_S = 0.25
TICKS_PER_S = 4.0
SEED = 7


class PriceWalk:
    """A random walk per instrument, starting `HISTORY_S` before `now_s`."""

    def __init__(self, amqp_url: str, now_s: float) -> None:
        self._amqp_url = amqp_url
        self._began_s = now_s - HISTORY_S
        self._walks = [Walk(instrument, SEED, instrument.level) for instrument in INSTRUMENTS]
        self._events = 0

    @asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """Publish the history, then move prices for the duration of the block."""
        async with await aio_pika.connect(self._amqp_url) as connection:
            exchange = await (await connection.channel()).get_exchange(EXCHANGE)
            await self._history(exchange)
            task = asyncio.create_task(self._live(exchange))
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _history(self, exchange: aio_pika.abc.AbstractExchange) -> None:
        ticks: list[Tick] = []
        for step in range(int(HISTORY_S / HISTORY_STEP_S)):
            at_ms = round((self._began_s + step * HISTORY_STEP_S) * 1000)
            for walk in self._walks:
                ticks += walk.step(HISTORY_STEP_S, 1 / HISTORY_STEP_S, at_ms)
            if len(ticks) >= EVENT_TICKS:
                await self._publish(exchange, ticks)
                ticks = []
        await self._publish(exchange, ticks)

    async def _live(self, exchange: aio_pika.abc.AbstractExchange) -> None:
        while True:
            await asyncio.sleep(LIVE_STEP_S)
            await self._publish(
                exchange, [tick for walk in self._walks for tick in walk.step(LIVE_STEP_S, TICKS_PER_S, now_ms())]
            )

    async def _publish(self, exchange: aio_pika.abc.AbstractExchange, ticks: list[Tick]) -> None:
        if not ticks:
            return
        self._events += 1
        body = cloud_event(f"evt_prices_{self._events}", "market.tick", [_fields(tick) for tick in ticks])
        await exchange.publish(aio_pika.Message(body, content_type="application/json"), "market.tick")


def _fields(tick: Tick) -> dict[str, Any]:
    fields = {"symbol": tick.symbol, "price": tick.price, "bid": tick.bid, "ask": tick.ask, "volume": tick.volume}
    return fields | {"timestamp": tick.at_ms}
