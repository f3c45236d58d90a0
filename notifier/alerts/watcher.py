"""The consumer of `notifier.ticks`: holds every tick against the open alerts, and tells of those that fire.

    ticks → fired on disk, with the tick → an event of ours on `realtime.events` → noted as told → acks

Crash or failure between any two steps: nothing was acknowledged, so the ticks come again; an alert that has fired does
not fire again, and one whose user is not told yet is found on disk and told. The event's id is the alert's, so that
telling twice is telling once. It takes the way of all events: inboxes keep their one writer.

Changes of alerts come through the same queue as the ticks, so that they stand in one order. The disk has them before;
the book is read from it again whenever another may have been at work, or a change may have been lost.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar, assert_never

import msgspec

from notifier import metrics
from notifier.alerts.book import AlertBook, AlertClosed, AlertOpened, AlertsReload, Change, Hit, fired_event
from notifier.alerts.store import AlertStore
from shared.bus.confirms import confirmed
from shared.bus.consumer import Line
from shared.bus.events import NOTIFICATION_CREATED
from shared.bus.publisher import Publisher
from shared.bus.topology import COMMANDS, EVENTS, NOTIFIER_ALERTS
from shared.commands.market import AppliedTicks
from shared.encoding import to_json
from shared.errors import Malformed, Refusal
from shared.protocol.validation import decode
from shared.telemetry import logs

log = logs.get(__name__)

T = TypeVar("T")

_ticks_decoder = msgspec.json.Decoder(AppliedTicks)
_change_decoder: msgspec.json.Decoder[Change] = msgspec.json.Decoder(Change)


def announce_change(bus: Publisher, change: Change) -> "asyncio.Future[None]":
    """Tell the watch, behind all ticks that are on their way to it."""
    return bus.publish(COMMANDS, NOTIFIER_ALERTS, to_json(change))


class AlertWatcher:
    """Handles the batches of `notifier.ticks`, one after another. Holds all open alerts: some 500 bytes each."""

    def __init__(self, store: AlertStore, bus: Publisher, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._bus = bus
        self._clock_ms = clock_ms
        self._book: AlertBook | None = None
        self._forgotten = 0

    def forget(self) -> None:
        """Drop the book: another may watch, and fire, until the next batch comes here."""
        self._book = None
        self._forgotten += 1

    async def reconnected(self) -> None:
        """The connection is there: a change of ours may have been lost with the one before, or with the process."""
        announce_change(self._bus, AlertsReload())

    async def handle(self, lines: list[Line]) -> None:
        """Hold a batch against the book. The handler of `Bus.consume`. Raises Unavailable."""
        try:
            book = await self._load() if self._book is None else self._book
            hits: list[Hit] = []
            for line in lines:
                if line.routing_key != NOTIFIER_ALERTS:
                    _hold(line, book, hits)
                elif _change(line, book):
                    await self._fire(hits)
                    book = await self._load()
            await self._fire(hits)
            metrics.ALERTS_OPEN.set(len(book))
        except BaseException:
            self.forget()  # it lacks alerts that are not known to have fired
            raise

    async def _load(self) -> AlertBook:
        """The book as the disk has it, once everybody is told of what had fired."""
        forgotten = self._forgotten
        await self._tell()
        book = AlertBook()
        async for alerts in self._store.active():
            for alert in alerts:
                book.add(alert)
        log.info("alerts_loaded", alerts=len(book))
        if forgotten == self._forgotten:
            self._book = book
        return book

    async def _fire(self, hits: list[Hit]) -> None:
        """Note the alerts that were hit as fired, tell of them, and empty the list."""
        if hits:
            await self._store.mark_fired(hits, self._clock_ms())
            await self._tell()
            hits.clear()

    async def _tell(self) -> None:
        while untold := await self._store.unannounced():
            confirms = [self._bus.publish(EVENTS, NOTIFICATION_CREATED, fired_event(fired)) for fired in untold]
            await confirmed(confirms)
            await self._store.mark_announced([fired.hit.alert.id for fired in untold])
            metrics.ALERTS_FIRED.inc(len(untold))


def _hold(line: Line, book: AlertBook, hits: list[Hit]) -> None:
    applied = _read(line, _ticks_decoder)
    if applied is None:
        return
    for tick in applied.ticks:
        hits += book.take_hits(tick)
    metrics.ALERT_TICKS.inc(len(applied.ticks))


def _change(line: Line, book: AlertBook) -> bool:
    """Apply a change. Returns whether the book must be loaded again."""
    change = _read(line, _change_decoder)
    match change:
        case None:
            pass
        case AlertOpened(alert):
            book.add(alert)
        case AlertClosed(alert_id):
            book.remove(alert_id)
        case AlertsReload():
            return True
        case _:
            assert_never(change)
    return False


def _read(line: Line, decoder: "msgspec.json.Decoder[T]") -> T | None:
    try:
        return decode(line.body, decoder)
    except (Malformed, Refusal) as error:
        line.reject(str(error))
        return None
