"""Sends every tick to notifier, before any conflation: alerts must see a spike between two deliveries."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from market_feed import metrics
from market_feed.quotes import Tick
from shared.bus.publisher import Publisher
from shared.bus.topology import NOTIFIER_TICKS, REQUESTS
from shared.commands.market import AppliedTick, AppliedTicks
from shared.errors import Unavailable

LINE_TICKS_MAX = 1000
UNCONFIRMED_MAX_BYTES = 32 * 1024 * 1024
CONFIRM_WAIT_S = 3.0


class _Sent(NamedTuple):
    """A line and its confirm."""

    line: bytes
    confirm: "asyncio.Future[None]"


class Announcer:
    """Announces ticks to notifier, at least once. Keeps each line until the broker has confirmed it.

    A tick may be acknowledged to its source before that, because the journal then holds it: after a crash, the ticks
    after the last checkpoint are announced again. A checkpoint waits for `confirmed`, so no tick is missed and some
    arrive twice.

    Bound: 32 MB, some 700,000 ticks; beyond that the oldest are dropped and counted.
    """

    def __init__(self, bus: Publisher, max_bytes: int = UNCONFIRMED_MAX_BYTES) -> None:
        self._bus = bus
        self._max_bytes = max_bytes
        self._encode = msgspec.json.Encoder().encode
        self._sent: deque[_Sent] = deque()
        self._size_bytes = 0

    def announce(self, ticks: Sequence[Tick], seqs: Sequence[int]) -> None:
        """Send ticks with their seqs."""
        self._forget_confirmed()
        for start in range(0, len(ticks), LINE_TICKS_MAX):
            end = start + LINE_TICKS_MAX
            applied = [
                AppliedTick(tick.symbol, tick.price, seq, tick.at_ms)
                for tick, seq in zip(ticks[start:end], seqs[start:end], strict=True)
            ]
            self._send(self._encode(AppliedTicks(ticks=applied)))

    async def confirmed(self) -> None:
        """Wait until everything sent so far is confirmed; failed lines are sent again once. Raises Unavailable."""
        for _ in range(2):
            waiting = {sent.confirm for sent in self._sent}
            if waiting:
                await asyncio.wait(waiting, timeout=CONFIRM_WAIT_S)
            self._forget_confirmed()
            if not any(_failed_or_open(sent.confirm) for sent in self._sent if sent.confirm in waiting):
                return
            self.resend()
        raise Unavailable("the broker did not confirm the announced ticks")

    def resend(self) -> None:
        """Send failed lines again: the broker may be reachable now."""
        if not any(sent.confirm.done() and sent.confirm.exception() for sent in self._sent):
            return
        sent, self._sent, self._size_bytes = self._sent, deque(), 0
        for entry in sent:
            if not entry.confirm.done():
                self._keep(entry)
            elif entry.confirm.exception() is not None:
                self._send(entry.line)

    def _forget_confirmed(self) -> None:
        while self._sent and not _failed_or_open(self._sent[0].confirm):
            self._size_bytes -= len(self._sent.popleft().line)

    def _send(self, line: bytes) -> None:
        self._keep(_Sent(line, self._bus.publish(REQUESTS, NOTIFIER_TICKS, line)))

    def _keep(self, entry: _Sent) -> None:
        self._sent.append(entry)
        self._size_bytes += len(entry.line)
        while self._size_bytes > self._max_bytes:
            self._size_bytes -= len(self._sent.popleft().line)
            metrics.TICKS_UNANNOUNCED.inc()


def _failed_or_open(confirm: "asyncio.Future[None]") -> bool:
    return not confirm.done() or confirm.exception() is not None
