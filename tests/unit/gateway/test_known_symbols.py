"""Look-ups of symbols: shared, remembered, and bounded a second."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from gateway import known_symbols
from gateway.known_symbols import KnownSymbols
from shared.commands.market import Prices
from shared.errors import Unavailable


class CountingMarket:
    """Knows every symbol that begins with K; counts the queries."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.is_away = False
        self.symbols = KnownSymbols(self._fetch, asyncio.create_task)

    async def _fetch(self, symbols: Sequence[str]) -> Prices:
        self.asked.append(tuple(symbols))
        if self.is_away:
            raise Unavailable("away")
        return Prices(prices=(), unknown=tuple(symbol for symbol in symbols if not symbol.startswith("K")))


async def test_known_symbols_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_symbols, "ROUND_INTERVAL_S", 0.0)
    market = CountingMarket()
    assert await market.symbols.unknown(["K1", "X1", "K1"]) == ["X1"]
    market.is_away = True
    assert await market.symbols.unknown(["K1"]) == []
    assert market.asked == [("K1", "X1")]
    with pytest.raises(Unavailable):
        await market.symbols.unknown(["K1", "X1"])
    market.is_away = False
    assert await market.symbols.unknown(["K1", "X1"]) == ["X1"]


async def test_flood_of_unknown_symbols_costs_few_queries() -> None:
    market = CountingMarket()
    begun_s = asyncio.get_running_loop().time()
    for number in range(3):
        floods = [market.symbols.unknown([f"X{number}-{index}"]) for index in range(500)]
        assert all(await asyncio.gather(*floods))
    assert len(market.asked) == 3
    assert asyncio.get_running_loop().time() - begun_s >= 2 * known_symbols.ROUND_INTERVAL_S * 0.9


async def test_round_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_symbols, "ROUND_MAX", 3)
    market = CountingMarket()
    answers = await asyncio.gather(
        market.symbols.unknown(["K1", "K2"]), market.symbols.unknown(["K3", "K4"]), return_exceptions=True
    )
    assert answers[0] == []
    assert isinstance(answers[1], Unavailable)


async def test_oldest_known_symbols_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_symbols, "KNOWN_MAX", 2)
    monkeypatch.setattr(known_symbols, "ROUND_INTERVAL_S", 0.0)
    market = CountingMarket()
    for symbols in (["K1"], ["K2"], ["K3"], ["K2", "K3"], ["K1"]):
        assert await market.symbols.unknown(symbols) == []
    assert market.asked == [("K1",), ("K2",), ("K3",), ("K1",)]


async def test_cancelled_caller_does_not_cancel_the_others() -> None:
    market = CountingMarket()
    leaving, staying = (asyncio.create_task(market.symbols.unknown(["X1"])) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == ["X1"]
    assert len(market.asked) == 1


async def test_look_up_that_is_cancelled_before_it_starts_ends_the_wait() -> None:
    def spawn(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        task.cancel()
        return task

    market = CountingMarket()
    symbols = KnownSymbols(market._fetch, spawn)
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await symbols.unknown(["X1"])
