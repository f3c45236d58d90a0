"""Tells notifier of every tick, before any conflation: an alert must see the spike between two deliveries."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from market_feed import metrics
from market_feed.ticker import Tick
from shared.errors import Unavailable
from shared.market_commands import AppliedTick, AppliedTicks
from shared.topology import COMMANDS, NOTIFIER_TICKS

LINE_TICKS_MAX = 1000
UNCONFIRMED_MAX_BYTES = 32 * 1024 * 1024
CONFIRM_WAIT_S = 2.0


class Publisher(Protocol):
    """The part of the bus that announces."""

    def publish(self, exchange: str, key: str, line: bytes) -> "asyncio.Future[None]":
        """Send a line; the future is its confirm."""


class _Sent(NamedTuple):
    line: bytes
    confirm: "asyncio.Future[None]"


class Announcer:
    """Lines of ticks, each kept until the broker has confirmed it.

    Bound: 32 MB, some 700,000 ticks; beyond that the oldest are dropped and counted.
    """

    def __init__(self, bus: Publisher) -> None:
        self._bus = bus
        self._encode = msgspec.json.Encoder().encode
        self._sent: deque[_Sent] = deque()
        self._size_bytes = 0

    def announce(self, ticks: Sequence[Tick], seqs: Sequence[int]) -> None:
        """Send ticks with their seqs."""
        for start in range(0, len(ticks), LINE_TICKS_MAX):
            applied = [
                AppliedTick(tick.symbol, tick.price, seq, tick.at_ms)
                for tick, seq in zip(
                    ticks[start : start + LINE_TICKS_MAX], seqs[start : start + LINE_TICKS_MAX], strict=True
                )
            ]
            self._send(self._encode(AppliedTicks(ticks=applied)))

    async def confirmed(self) -> None:
        """Wait a little for the confirms; what failed is sent again. What is still open then, is so at the next call.

        Ticks are acknowledged to their source behind this: a crash between the two announces them twice, not never.
        """
        if self._sent:
            await asyncio.wait({sent.confirm for sent in self._sent}, timeout=CONFIRM_WAIT_S)
            self._sort_out()

    async def resend(self) -> None:
        """Send what failed again: the broker is back."""
        self._sort_out()

    def _sort_out(self) -> None:
        sent, self._sent, self._size_bytes = self._sent, deque(), 0
        for entry in sent:
            if not entry.confirm.done():
                self._keep(entry)
            elif isinstance(entry.confirm.exception(), Unavailable):
                self._send(entry.line)

    def _send(self, line: bytes) -> None:
        self._keep(_Sent(line, self._bus.publish(COMMANDS, NOTIFIER_TICKS, line)))

    def _keep(self, entry: _Sent) -> None:
        self._sent.append(entry)
        self._size_bytes += len(entry.line)
        while self._size_bytes > UNCONFIRMED_MAX_BYTES:
            self._size_bytes -= len(self._sent.popleft().line)
            metrics.TICKS_UNANNOUNCED.inc()
