"""The heart of the service: ticks in from every source; prices out to gateways, every tick out to notifier."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from market_feed import metrics
from market_feed.announcer import Announcer
from market_feed.journal import Journal
from market_feed.market import Market, Position
from market_feed.quotes import Tick, price_data
from shared.bus.delivery import Delivery, DeliveryClass, market_channel
from shared.errors import Unavailable
from shared.protocol.server_frames import PriceData
from shared.telemetry import logs
from shared.times import now_ms

log = logs.get(__name__)

PENDING_TICKS_MAX = 200_000
BACKLOG_MAX = 400_000
SWEEP_INTERVAL_S = 0.5
# Prices gather before they leave, except after an idle moment, for longer the more symbols move at once: each flush
# costs up to 64 AMQP messages, one a shard, whatever it carries. At 20,000 ticks a second of 500 symbols this brings
# the service from 75 % of a core down to 52 %.
GATHER_PER_SYMBOL_S = 0.0004
GATHER_MAX_S = 0.04


class Source(NamedTuple):
    """A source's name, and after how long without a tick a price of it is stale."""

    name: str
    stale_s: float


class _PriceFrame(msgspec.Struct, frozen=True):
    type: str
    data: PriceData


class Publisher(Protocol):
    """The part of the bus that delivers."""

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached right now."""

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        """Send a delivery to the gateways that listen to its shard."""


class Feed:
    """One term of ownership, as its sources see it.

    Bound: 200,000 ticks that wait for the journal, 400,000 candles that wait to be written; then nothing is taken.
    """

    def __init__(
        self,
        bus: Publisher,
        market: Market,
        keeper: Journal,
        announcer: Announcer,
        owns: Callable[[], bool],
        stale_s: float,
    ) -> None:
        self.market = market
        self.keeper = keeper
        self._bus = bus
        self._announcer = announcer
        self._owns = owns
        self._encode = msgspec.json.Encoder().encode
        self._outgoing: dict[str, bool] = {}  # symbols whose price is to be delivered; whether it was stale before
        self._undelivered = set(market.quotes)  # those that the broker did not take; at first, what was recovered
        self._deliver_next_s = 0.0
        self._is_gathering = False
        self._leaders: dict[str, str] = {}  # the source that moved a symbol last
        recovered_s = time.monotonic()
        self._stale_at_s = {symbol: recovered_s + stale_s for symbol in market.quotes}
        metrics.SYMBOLS.set(len(market.quotes))

    def check_open(self) -> None:
        """Raises Unavailable when nothing may be taken now: ownership is in doubt, or too much waits for the disk."""
        if not self._owns():
            raise Unavailable("ownership of the symbols is in doubt: the lease could not be renewed")
        if self.market.pending > PENDING_TICKS_MAX or self.market.book.backlog > BACKLOG_MAX:
            raise Unavailable("too much waits for the database")

    def take(
        self,
        source: Source,
        ticks: Sequence[Tick],
        *,
        event_keys: Iterable[bytes] = (),
        position: Position | None = None,
        digits: int = 0,
    ) -> None:
        """Count ticks, in order; announce them all, and deliver the newest price of each symbol among them.

        Raises Unavailable, and then none of them counts.
        """
        self.check_open()
        taken = self.market.take(ticks, event_keys=event_keys, position=position, digits=digits)
        self._announcer.announce(ticks, taken.seqs)
        stale_at_s = time.monotonic() + source.stale_s
        for symbol, quote in taken.moved.items():
            self._stale_at_s[symbol] = stale_at_s
            self._leaders[symbol] = source.name
            self._outgoing[symbol] = self._outgoing.get(symbol) or quote.stale
            quote.stale = False
        self._gather()
        metrics.TICKS.labels(source.name).inc(len(ticks))
        if ticks:
            age_ms = now_ms() - min(tick.at_ms for tick in ticks)
            metrics.TICK_AGE_SECONDS.labels(source.name).observe(max(age_ms, 0) / 1000)
        metrics.TICKS_LATE.inc(taken.late)
        self.keeper.look()

    def is_led_by_another(self, source: Source, symbol: str) -> bool:
        """Whether another source moved the symbol last, and its price is not stale yet."""
        return self._leaders.get(symbol, source.name) != source.name and not self.market.quotes[symbol].stale

    def offer(
        self, source: Source, ticks: Sequence[Tick], *, event_keys: Iterable[bytes] = (), digits: int = 0
    ) -> None:
        """Like `take`, for a source that cannot wait: what cannot be taken is skipped and counted."""
        try:
            self.take(source, ticks, event_keys=event_keys, digits=digits)
        except Unavailable:
            metrics.TICKS_SKIPPED.labels(source.name).inc(len(ticks))

    async def sweep(self) -> None:
        """Mark prices stale whose source has fallen silent, and send again what did not get out; for ever."""
        while True:
            if self._owns():
                self._mark_stale(time.monotonic())
            if self._undelivered and self._bus.is_connected:
                for symbol in self._undelivered:
                    self._outgoing.setdefault(symbol, False)
                self._undelivered.clear()
                self._gather()
            self._announcer.resend()
            await asyncio.sleep(SWEEP_INTERVAL_S)

    def _mark_stale(self, now_s: float) -> None:
        quotes = self.market.quotes
        due = [symbol for symbol, at_s in self._stale_at_s.items() if at_s <= now_s]
        for symbol in due:
            del self._stale_at_s[symbol]
            if not quotes[symbol].stale:
                self.market.mark_stale(symbol)
                self._outgoing[symbol] = False
                self._gather()
        metrics.SYMBOLS.set(len(quotes))
        metrics.SYMBOLS_STALE.set(len(quotes) - len(self._stale_at_s))

    def _gather(self) -> None:
        """Deliver what is outgoing, soon."""
        if not self._is_gathering:
            self._is_gathering = True
            loop = asyncio.get_running_loop()
            loop.call_at(max(loop.time(), self._deliver_next_s), self.deliver_outgoing)

    def deliver_outgoing(self) -> None:
        """Deliver what is outgoing, now."""
        self._is_gathering = False
        outgoing, self._outgoing = self._outgoing, {}
        gather_s = min(len(outgoing) * GATHER_PER_SYMBOL_S, GATHER_MAX_S)
        self._deliver_next_s = asyncio.get_running_loop().time() + gather_s
        if not self._bus.is_connected:
            self._undelivered.update(outgoing)
            return
        self._undelivered.difference_update(outgoing)
        confirms: dict[asyncio.Future[None], list[str]] = {}
        for symbol, moves_again in outgoing.items():
            confirms.setdefault(self._deliver(symbol, moves_again), []).append(symbol)
        for confirm, symbols in confirms.items():
            confirm.add_done_callback(partial(self._note_delivered, symbols))

    def _deliver(self, symbol: str, moves_again: bool) -> "asyncio.Future[None]":
        quote = self.market.quotes[symbol]
        stale = False if moves_again and not quote.stale else None
        frame = self._encode(_PriceFrame("market:price", price_data(quote, stale)))
        return self._bus.deliver(Delivery(market_channel(symbol), DeliveryClass.LATEST, quote.seq, symbol, frame))

    def _note_delivered(self, symbols: list[str], confirm: "asyncio.Future[None]") -> None:
        if confirm.cancelled() or confirm.exception() is not None:
            self._undelivered.update(symbols)
