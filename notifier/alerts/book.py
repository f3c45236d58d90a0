"""Price alerts: finds those that a tick fires, and creates their events. Pure.

An alert fires at the first tick at its price or beyond. The book keeps two heaps per symbol: a tick that fires nothing
costs two comparisons, and each alert fired costs O(log n), however many are open.
"""

import heapq
from decimal import Decimal
from typing import NamedTuple

import msgspec

from shared.bus.events import NOTIFICATION_CREATED
from shared.commands.market import AppliedTick
from shared.commands.notifier import AlertDirection
from shared.encoding import to_json
from shared.times import to_iso

EVENT_SOURCE = "/services/notifier/alerts"
GARBAGE_ALLOWED = 1000


class AlertTerms(msgspec.Struct, frozen=True):
    """The condition of an alert: the first tick of `symbol` that is at `price` or beyond it in `direction`."""

    id: str
    user_id: str
    symbol: str
    direction: AlertDirection
    price: float


class Hit(NamedTuple):
    """The terms of an alert, and the tick that meets them."""

    terms: AlertTerms
    tick: AppliedTick


class Fired(NamedTuple):
    """A hit that is stored, and its time."""

    hit: Hit
    at_ms: int


class _Heaps(NamedTuple):
    """A symbol's alerts as heaps of (price, id). Prices in `below` are negated, so that the highest is first."""

    above: list[tuple[float, str]]
    below: list[tuple[float, str]]


class AlertBook:
    """All open alerts. A removed alert stays in its heap until its price is reached or the heaps are rebuilt."""

    def __init__(self) -> None:
        self._open: dict[str, AlertTerms] = {}
        self._heaps: dict[str, _Heaps] = {}
        self._garbage = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, terms: AlertTerms) -> None:
        """Watch an alert. Idempotent."""
        if terms.id not in self._open:
            self._open[terms.id] = terms
            self._push(terms)

    def remove(self, alert_id: str) -> None:
        """Stop watching an alert. Idempotent."""
        if self._open.pop(alert_id, None) is None:
            return
        self._garbage += 1
        if self._garbage > len(self._open) + GARBAGE_ALLOWED:
            self._heaps.clear()
            self._garbage = 0
            for terms in self._open.values():
                self._push(terms)

    def take_hits(self, tick: AppliedTick) -> list[Hit]:
        """Remove and return the alerts that a tick fires."""
        heaps = self._heaps.get(tick.symbol)
        if heaps is None:
            return []
        hits: list[Hit] = []
        while heaps.above and heaps.above[0][0] <= tick.price:
            self._take(heapq.heappop(heaps.above)[1], tick, hits)
        while heaps.below and -heaps.below[0][0] >= tick.price:
            self._take(heapq.heappop(heaps.below)[1], tick, hits)
        return hits

    def _push(self, terms: AlertTerms) -> None:
        heaps = self._heaps.get(terms.symbol)
        if heaps is None:
            heaps = self._heaps[terms.symbol] = _Heaps([], [])
        if terms.direction is AlertDirection.ABOVE:
            heapq.heappush(heaps.above, (terms.price, terms.id))
        else:
            heapq.heappush(heaps.below, (-terms.price, terms.id))

    def _take(self, alert_id: str, tick: AppliedTick, hits: list[Hit]) -> None:
        terms = self._open.pop(alert_id, None)
        if terms is None:
            self._garbage = max(self._garbage - 1, 0)
        else:
            hits.append(Hit(terms, tick))


# Lines of `notifier.alerts`, from the writers of alerts to the watcher ------------------------------------------------


class AlertOpened(msgspec.Struct, frozen=True, tag="opened"):
    """Start watching this alert."""

    alert: AlertTerms


class AlertClosed(msgspec.Struct, frozen=True, tag="closed"):
    """Stop watching this alert."""

    alert_id: str


class AlertsReload(msgspec.Struct, frozen=True, tag="reload"):
    """Reload all alerts from disk, since an earlier change may be lost."""


Change = AlertOpened | AlertClosed | AlertsReload


# Event --------------------------------------------------------------------------------------------------------------


def fired_event(fired: Fired) -> bytes:
    """Return the event for the alert's user. Its id is the alert's, so that duplicates are dropped."""
    terms, tick = fired.hit
    price, target = _shown(tick.price), _shown(terms.price)
    data = {
        "userId": terms.user_id,
        "title": f"{terms.symbol} {terms.direction.value} {target}",
        "message": f"{terms.symbol} is at {price}; your alert was set at {target}.",
        "priority": "high",
        "alert": {
            "id": terms.id,
            "symbol": terms.symbol,
            "direction": terms.direction.value,
            "price": terms.price,
        },
        "tick": {"price": tick.price, "seq": tick.seq, "timestamp": to_iso(tick.at_ms)},
    }
    return to_json(
        {
            "specversion": "1.0",
            "id": terms.id,
            "source": EVENT_SOURCE,
            "type": NOTIFICATION_CREATED,
            "time": to_iso(fired.at_ms),
            "audience": f"user:{terms.user_id}",
            "data": data,
        }
    )


def _shown(price: float) -> str:
    """Return the price with all its digits, without an exponent."""
    return f"{Decimal(repr(price)):f}".removesuffix(".0")
