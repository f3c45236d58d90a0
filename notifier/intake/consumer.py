"""The consumer of `notifier.events`: writes inboxes, then sends deliveries. A batch becomes several commits.

    known events? → insert records → inboxes → deliveries, confirmed → mark as done → acks

Crash or failure between any two steps: nothing was acknowledged, so the events are delivered again. Events that are
done are skipped; the others are delivered again with the seqs and keys of their stored entries, and gateways drop the
duplicates.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import assert_never

from notifier import metrics
from notifier.events.audience import USERS_MAX, Listeners, Users
from notifier.events.commit import EventCommit
from notifier.events.notifications import Addressed, Entry, Record, address, entry_frame, listeners_frame
from notifier.events.store import EventStore
from notifier.inbox.inbox import Inboxes
from notifier.inbox.sequencing import UserNotice
from notifier.intake.batching import by_recipients, by_size
from shared.bus.confirms import confirmed
from shared.bus.consumer import Line
from shared.bus.delivery import Delivery, DeliveryKind, inbox_channel
from shared.bus.events import (
    MARKET_TICK,
    USER_BANNED,
    USER_REVOKED,
    USER_UPDATED,
    decode_event,
    event_time_ms,
)
from shared.bus.publisher import Publisher
from shared.errors import Malformed
from shared.telemetry import tracing

COMMIT_RECIPIENTS = USERS_MAX  # of the events of one commit
TRACED_MAX = 20  # deliveries of an event; there may be thousands
SLICE_RECIPIENTS = 1_000  # handled at once within a commit, so that the first of 10,000 do not wait for the last

# Types that another consumer handles, from a queue of its own; that consumer also rejects malformed events.
_HANDLED_ELSEWHERE = frozenset({MARKET_TICK, USER_UPDATED, USER_REVOKED, USER_BANNED})


class EventConsumer:
    """Handles the batches of `notifier.events` one after another, so that inboxes have one writer."""

    def __init__(self, events: EventStore, inboxes: Inboxes, bus: Publisher, clock_ms: Callable[[], int]) -> None:
        self._commit = EventCommit(events, clock_ms)
        self._inboxes = inboxes
        self._bus = bus
        self._clock_ms = clock_ms

    async def handle(self, lines: list[Line]) -> None:
        """Deliver a batch: the handler of `Bus.consume`. Raises Unavailable; then nothing may be acknowledged."""
        addressed: dict[str, Addressed] = {}
        for line in lines:
            if (item := self._read(line)) is not None:
                addressed.setdefault(item.key, item)
        for some in by_recipients(addressed.values(), COMMIT_RECIPIENTS):
            started_s = time.perf_counter()
            with tracing.batch("commit", ((item.notice.type, item.trace) for item in some)):
                await self._commit.run(some, self._post)
            metrics.COMMIT_SECONDS.observe(time.perf_counter() - started_s)

    def _read(self, line: Line) -> Addressed | None:
        """Return the event of a line; None for a type of another queue, and for a malformed line, which is rejected."""
        if line.routing_key in _HANDLED_ELSEWHERE:
            metrics.EVENTS.labels("elsewhere").inc()
            return None
        try:
            event = decode_event(line.body)
            if event.type in _HANDLED_ELSEWHERE:
                raise Malformed(f"type: {event.type} needs the routing key {event.type}")
            now_ms = self._clock_ms()
            if (at_ms := event_time_ms(event)) is not None:
                metrics.EVENT_AGE_SECONDS.observe(max(now_ms - at_ms, 0) / 1000)
            return address(event, now_ms)
        except Malformed as error:
            line.reject(str(error))
            metrics.EVENTS.labels("refused").inc()
            return None

    async def _post(self, pending: Iterable[Addressed], records: Mapping[str, Record], now_ms: int) -> None:
        for some in by_recipients(pending, SLICE_RECIPIENTS):
            user_notices = [
                UserNotice(item.notice, item.audience.ids) for item in some if isinstance(item.audience, Users)
            ]
            entries = await self._inboxes.keep(user_notices, records.keys(), now_ms)
            for deliveries in by_size(_deliveries(some, entries)):
                await confirmed(map(self._bus.deliver, deliveries))
                metrics.DELIVERIES.inc(len(deliveries))


def _deliveries(pending: Iterable[Addressed], entries: Mapping[str, list[Entry]]) -> Iterator[Delivery]:
    """Yield all deliveries in order, and create each frame only then; also the traces of the first 20 of an event."""
    for item in pending:
        trace = item.trace if tracing.is_on else None
        for number, delivery in enumerate(_deliveries_of(item, entries)):
            yield delivery
            if trace is not None and number < TRACED_MAX:
                yield delivery.trace(trace)


def _deliveries_of(item: Addressed, entries: Mapping[str, list[Entry]]) -> Iterator[Delivery]:
    notice = item.notice
    match item.audience:
        case Users():
            for entry in entries[notice.key]:
                channel = inbox_channel(entry.user_id)
                yield Delivery(channel, DeliveryKind.ORDERED, entry.seq, "", entry_frame(notice, entry))
        case Listeners(channel):
            yield Delivery(channel, DeliveryKind.UNORDERED, 0, notice.key, listeners_frame(notice))
        case _:
            assert_never(item.audience)
