"""The symbols that market_feed knows; the others are looked up together, in at most ten queries a second."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from gateway.background import Spawn
from shared.commands.market import Prices
from shared.errors import RealtimeError, Unavailable

KNOWN_MAX = 10_000  # as many as market_feed takes
ROUND_INTERVAL_S = 0.1
ROUND_MAX = 2_000

Fetch = Callable[[Sequence[str]], Awaitable[Prices]]


class _Round:
    """One query: the symbols gathered for it, and a future that resolves to the unknown ones among them."""

    def __init__(self, answer: "asyncio.Future[frozenset[str]]") -> None:
        self.symbols: dict[str, None] = {}
        self.answer = answer


class KnownSymbols:
    """Remembers known symbols, and asks for the others in rounds: at most ten queries a second leave a gateway.

    market_feed never forgets a symbol. Bounds: 10,000 known ones, the oldest are forgotten first; 2,000 in a round,
    beyond which messages with a symbol that is not known yet are refused.
    """

    def __init__(self, fetch: Fetch, spawn: Spawn) -> None:
        self._fetch = fetch
        self._spawn = spawn
        self._known: dict[str, None] = {}
        self._gathering: _Round | None = None
        self._next_round_at_s = 0.0

    async def unknown(self, symbols: Iterable[str]) -> list[str]:
        """Return the unknown symbols. Raises Refusal and Unavailable."""
        asked = [symbol for symbol in dict.fromkeys(symbols) if symbol not in self._known]
        if not asked:
            return []
        gathering = self._gathering or self._begin()
        if len(gathering.symbols) + len(asked) > ROUND_MAX:
            raise Unavailable("too many unknown symbols are being looked up")
        gathering.symbols |= dict.fromkeys(asked)
        unknown = await asyncio.shield(gathering.answer)
        return [symbol for symbol in asked if symbol in unknown]

    def _begin(self) -> _Round:
        loop = asyncio.get_running_loop()
        self._gathering = begun = _Round(loop.create_future())
        begins_at_s = max(self._next_round_at_s, loop.time())
        self._next_round_at_s = begins_at_s + ROUND_INTERVAL_S
        asking = self._spawn(self._ask(begun, begins_at_s))
        asking.add_done_callback(lambda _: self._end(begun))  # also if it was cancelled before its first step
        return begun

    def _end(self, begun: _Round) -> None:
        if self._gathering is begun:
            self._gathering = None
        begun.answer.cancel()  # without effect once it has an answer

    async def _ask(self, begun: _Round, begins_at_s: float) -> None:
        try:
            await asyncio.sleep(begins_at_s - asyncio.get_running_loop().time())
            self._gathering = None
            answer = await self._fetch(tuple(begun.symbols))
        except RealtimeError as error:
            begun.answer.set_exception(error)
            begun.answer.exception()  # mark the exception retrieved: all who asked may have been cancelled
        else:
            self._remember(begun.symbols.keys() - answer.unknown)
            begun.answer.set_result(frozenset(answer.unknown))

    def _remember(self, symbols: Iterable[str]) -> None:
        self._known |= dict.fromkeys(symbols)
        for symbol in list(self._known)[: max(len(self._known) - KNOWN_MAX, 0)]:
            del self._known[symbol]
