"""The consumer of `notifier.ticks`: compares every tick with the open alerts, and announces those that fire.

    ticks → fired on disk, with the tick → event on `realtime.events` → marked as announced → acks

Crash or failure between any two steps: nothing was acknowledged, so the ticks are redelivered. A fired alert does not
fire again, and one whose user was not notified is found on disk and announced. The event's id is the alert's, so a
second announcement is dropped as a duplicate. The event is published like any other, so inboxes keep one writer.

Changes of alerts use the same queue as the ticks, so both have one order. A change is on disk before it is sent. The
book is reloaded whenever another replica may have been the watcher, or a change may be lost.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar, assert_never

import msgspec

from notifier import metrics
from notifier.alerts.book import AlertBook, AlertClosed, AlertOpened, AlertsReload, Change, Hit, fired_event
from notifier.alerts.store import AlertStore
from notifier.alerts.trimming import FiredAlertTrimmer
from shared.bus.confirms import confirmed
from shared.bus.consumer import Line
from shared.bus.events import NOTIFICATION_CREATED
from shared.bus.publisher import Publisher
from shared.bus.topology import EVENTS, NOTIFIER_ALERTS, REQUESTS
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
    """Send a change to the watcher, after all ticks that are queued for it."""
    return bus.publish(REQUESTS, NOTIFIER_ALERTS, to_json(change))


class AlertWatcher:
    """Handles the batches of `notifier.ticks` one after another. Holds all open alerts, some 500 bytes each."""

    def __init__(
        self, store: AlertStore, bus: Publisher, clock_ms: Callable[[], int], trimmer: FiredAlertTrimmer
    ) -> None:
        self._store = store
        self._trimmer = trimmer
        self._bus = bus
        self._clock_ms = clock_ms
        self._book: AlertBook | None = None
        self._forgotten = 0

    def forget(self) -> None:
        """Drop the book, because another replica may be the watcher until the next batch arrives here."""
        self._book = None
        self._forgotten += 1

    async def reconnected(self) -> None:
        """Request a reload: a change sent by this process may be lost with the last connection."""
        announce_change(self._bus, AlertsReload())

    async def handle(self, lines: list[Line]) -> None:
        """Compare a batch with the book: the handler of `Bus.consume`. Raises Unavailable."""
        try:
            book = await self._load() if self._book is None else self._book
            hits: list[Hit] = []
            for line in lines:
                if line.routing_key != NOTIFIER_ALERTS:
                    _take_ticks(line, book, hits)
                elif _change(line, book):
                    await self._fire(hits)
                    book = await self._load()
            await self._fire(hits)
            metrics.ALERTS_OPEN.set(len(book))
        except BaseException:
            self.forget()  # the hits are no longer in the book, and possibly not stored as fired
            raise

    async def _load(self) -> AlertBook:
        """Announce the alerts that have fired, then load the book from disk."""
        forgotten = self._forgotten
        await self._announce()
        book = AlertBook()
        async for some in self._store.active():
            for terms in some:
                book.add(terms)
        log.info("alerts_loaded", alerts=len(book))
        if forgotten == self._forgotten:
            self._book = book
        return book

    async def _fire(self, hits: list[Hit]) -> None:
        """Store the hits as fired, announce them, and clear the list."""
        if hits:
            await self._store.mark_fired(hits, self._clock_ms())
            await self._announce()
            hits.clear()

    async def _announce(self) -> None:
        while unannounced := await self._store.unannounced():
            confirms = [self._bus.publish(EVENTS, NOTIFICATION_CREATED, fired_event(fired)) for fired in unannounced]
            await confirmed(confirms)
            await self._store.mark_announced([fired.hit.terms.id for fired in unannounced])
            metrics.ALERTS_FIRED.inc(len(unannounced))
            self._trimmer.note(fired.hit.terms.user_id for fired in unannounced)


def _take_ticks(line: Line, book: AlertBook, hits: list[Hit]) -> None:
    applied = _read(line, _ticks_decoder)
    if applied is None:
        return
    for tick in applied.ticks:
        hits += book.take_hits(tick)
    metrics.ALERT_TICKS.inc(len(applied.ticks))


def _change(line: Line, book: AlertBook) -> bool:
    """Apply a change, and return whether the book must be reloaded."""
    change = _read(line, _change_decoder)
    match change:
        case None:
            pass
        case AlertOpened(terms):
            book.add(terms)
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
