"""Takes what `notifier.events` brings: inboxes written, deliveries out. A batch becomes group commits.

    known events? → note the new ones as begun → inboxes → deliveries, confirmed → note them as done → acks

Crash or failure between any two steps: nothing was acknowledged, so the events come again. Those that are done are
passed over; those that are begun find their entries on disk and are delivered again with the same seqs and keys, by
which gateways drop repeats.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import assert_never

from notifier import metrics
from notifier.events.audience import USERS_MAX, Listeners, Users
from notifier.events.notifications import Addressed, Entry, address, entry_frame, listeners_frame
from notifier.events.publishing import Publisher, confirmed
from notifier.events.store import EventStore, until_no_conflict
from notifier.inbox.inbox import Inboxes
from notifier.inbox.sequencing import Posting
from notifier.intake.batching import by_recipients, by_size, pending_of, record_of
from shared.bus.consumer import Line
from shared.bus.delivery import Delivery, DeliveryClass, inbox_channel
from shared.bus.events import (
    MARKET_TICK,
    USER_BANNED,
    USER_REVOKED,
    USER_UPDATED,
    decode_event,
    event_time_ms,
)
from shared.errors import Malformed

COMMIT_RECIPIENTS = USERS_MAX
SLICE_RECIPIENTS = 1_000  # stored and delivered before the next: the first of 10,000 do not wait for the last

# These have queues of their own; who consumes those dead-letters what is wrong with them.
_ELSEWHERE = frozenset({MARKET_TICK, USER_UPDATED, USER_REVOKED, USER_BANNED})


class EventConsumer:
    """Handles the batches of `notifier.events`, one after another; so there is one writer of inboxes."""

    def __init__(self, events: EventStore, inboxes: Inboxes, bus: Publisher, clock_ms: Callable[[], int]) -> None:
        self._events = events
        self._inboxes = inboxes
        self._bus = bus
        self._clock_ms = clock_ms

    async def handle(self, lines: list[Line]) -> None:
        """Attend to a batch. The handler of `Bus.consume`. Raises Unavailable; then nothing may be acknowledged."""
        addressed: dict[str, Addressed] = {}
        for line in lines:
            if (item := self._read(line)) is not None:
                addressed.setdefault(item.notice.key, item)
        for some in by_recipients(addressed.values(), COMMIT_RECIPIENTS):
            started_s = time.perf_counter()
            await until_no_conflict(partial(self._commit, some))
            metrics.COMMIT_SECONDS.observe(time.perf_counter() - started_s)

    def _read(self, line: Line) -> Addressed | None:
        """What a line says and to whom; None if that is nothing for us, and the line rejected if it is no event."""
        if line.routing_key in _ELSEWHERE:
            metrics.EVENTS.labels("elsewhere").inc()
            return None
        try:
            event = decode_event(line.body)
            if event.type in _ELSEWHERE:
                raise Malformed(f"type: {event.type} needs the routing key {event.type}")
            now_ms = self._clock_ms()
            if (at_ms := event_time_ms(event)) is not None:
                metrics.EVENT_AGE_SECONDS.observe(max(now_ms - at_ms, 0) / 1000)
            return address(event, now_ms)
        except Malformed as error:
            line.reject(str(error))
            metrics.EVENTS.labels("refused").inc()
            return None

    async def _commit(self, addressed: Sequence[Addressed]) -> None:
        now_ms = self._clock_ms()
        records = await self._events.records([item.notice.key for item in addressed])
        fresh = [record_of(item) for item in addressed if item.notice.key not in records]
        await self._events.insert_records(fresh, now_ms)
        pending = pending_of(addressed, records)
        for some in by_recipients(pending, SLICE_RECIPIENTS):
            postings = [Posting(item.notice, item.audience.ids) for item in some if isinstance(item.audience, Users)]
            entries = await self._inboxes.keep(postings, records.keys(), now_ms)
            for deliveries in by_size(_deliveries(some, entries)):
                await confirmed(self._bus, deliveries)
        await self._events.mark_done([item.notice.key for item in pending])
        metrics.EVENTS.labels("delivered").inc(len(pending))
        metrics.EVENTS.labels("repeated").inc(len(addressed) - len(pending))


def _deliveries(pending: Iterable[Addressed], entries: Mapping[str, Sequence[Entry]]) -> Iterator[Delivery]:
    """The deliveries of all, in order; frames are made as they are asked for."""
    for item in pending:
        notice = item.notice
        match item.audience:
            case Users():
                for entry in entries[notice.key]:
                    channel = inbox_channel(entry.user_id)
                    yield Delivery(channel, DeliveryClass.LOSSLESS, entry.seq, "", entry_frame(notice, entry))
            case Listeners(channel):
                yield Delivery(channel, DeliveryClass.LOSSLESS, 0, notice.key, listeners_frame(notice))
            case _:
                assert_never(item.audience)
