"""Takes what `notifier.events` brings: inboxes written, deliveries out. A batch becomes group commits.

    known events? → note the new ones as begun → inboxes → deliveries, confirmed → note them as done → acks

Crash or failure between any two steps: nothing was acknowledged, so the events come again. Those that are done are
passed over; those that are begun find their entries on disk and are delivered again with the same seqs and keys, by
which gateways drop repeats.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, assert_never

import msgspec

from notifier import metrics
from notifier.assignment import Posting
from notifier.audience import USERS_MAX, Listeners, Users
from notifier.inbox import Inboxes
from notifier.notices import Addressed, Entry, address, entry_frame, listeners_frame
from notifier.store import Conflict, NotifierStore, Record
from shared import logs
from shared.consumer import Line
from shared.errors import Malformed, Unavailable
from shared.events import MARKET_TICK, USER_BANNED, USER_REVOKED, USER_UPDATED, decode_event
from shared.topology import Delivery, DeliveryClass, inbox_channel

log = logs.get(__name__)

COMMIT_RECIPIENTS = USERS_MAX
SLICE_RECIPIENTS = 1_000  # stored and delivered before the next: the first of 10,000 do not wait for the last
DELIVERED_AT_ONCE_MAX_BYTES = 4 * 1024 * 1024
CONFLICTS_MAX = 10

# Other services have queues of their own for these, and dead-letter what is wrong with them.
_ELSEWHERE = frozenset({MARKET_TICK, USER_UPDATED})


class Publisher(Protocol):
    """What the intake needs of the bus."""

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        """Send a delivery; the future is its confirm."""


class Intake:
    """Handles the batches of `notifier.events`, one after another."""

    def __init__(self, store: NotifierStore, inboxes: Inboxes, bus: Publisher, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._inboxes = inboxes
        self._bus = bus
        self._clock_ms = clock_ms

    async def handle(self, lines: list[Line]) -> None:
        """Attend to a batch. The handler of `Bus.consume`. Raises Unavailable; then nothing may be acknowledged."""
        addressed: dict[str, Addressed] = {}
        for line in lines:
            if (item := self._read(line)) is not None:
                addressed.setdefault(item.notice.key, item)
        for some in _by_recipients(addressed.values(), COMMIT_RECIPIENTS):
            started_s = time.perf_counter()
            await self._commit(some)
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
            if event.type in {USER_REVOKED, USER_BANNED}:
                return None
            return address(event, self._clock_ms())
        except Malformed as error:
            line.reject(str(error))
            metrics.EVENTS.labels("refused").inc()
            return None

    async def _commit(self, addressed: Sequence[Addressed]) -> None:
        for _ in range(CONFLICTS_MAX):
            try:
                await self._commit_once(addressed)
                return
            except Conflict as conflict:
                log.info("commit_conflict", reason=str(conflict), events=len(addressed))
                metrics.CONFLICTS.inc()
        raise Unavailable(f"still in conflict with another writer after {CONFLICTS_MAX} tries")

    async def _commit_once(self, addressed: Sequence[Addressed]) -> None:
        now_ms = self._clock_ms()
        records = await self._store.records([item.notice.key for item in addressed])
        fresh = [item for item in addressed if item.notice.key not in records]
        await self._store.insert_records(((item.notice, isinstance(item.audience, Users)) for item in fresh), now_ms)
        pending = _pending(addressed, records)
        for some in _by_recipients(pending, SLICE_RECIPIENTS):
            postings = [Posting(item.notice, item.audience.ids) for item in some if isinstance(item.audience, Users)]
            entries = await self._inboxes.keep(postings, records.keys(), now_ms)
            await self._deliver(_deliveries(some, entries))
        await self._store.mark_done([item.notice.key for item in pending])
        metrics.EVENTS.labels("delivered").inc(len(pending))
        metrics.EVENTS.labels("repeated").inc(len(addressed) - len(pending))

    async def _deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Send all, 4 MB at a time at most, and return when the broker has confirmed them."""
        for some in _by_size(deliveries):
            confirms = [self._bus.deliver(delivery) for delivery in some]
            for confirm in dict.fromkeys(confirms):  # many lines share one AMQP message, and so one confirm
                await confirm
            metrics.DELIVERIES.inc(len(some))


def _pending(addressed: Iterable[Addressed], records: Mapping[str, Record]) -> list[Addressed]:
    """What is not done yet; what an earlier try began goes on as it was begun."""
    pending: list[Addressed] = []
    for item in addressed:
        record = records.get(item.notice.key)
        if record is None:
            pending.append(item)
        elif not record.is_done:
            begun = record.notice or msgspec.structs.replace(item.notice, created_at_ms=record.created_at_ms)
            pending.append(Addressed(begun, item.audience))
    return pending


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


def _by_recipients(addressed: Iterable[Addressed], recipients_max: int) -> Iterator[list[Addressed]]:
    """All in order, as many together as have that many recipients. An event with more of them is split."""
    some: list[Addressed] = []
    room = recipients_max
    for item in addressed:
        for part in _parts(item, recipients_max):
            count = len(part.audience.ids) if isinstance(part.audience, Users) else 1
            if count > room:
                yield some
                some, room = [], recipients_max
            some.append(part)
            room -= count
    if some:
        yield some


def _parts(item: Addressed, recipients_max: int) -> Iterator[Addressed]:
    if not isinstance(item.audience, Users) or len(item.audience.ids) <= recipients_max:
        yield item
        return
    ids = item.audience.ids
    for start in range(0, len(ids), recipients_max):
        yield Addressed(item.notice, Users(ids[start : start + recipients_max]))


def _by_size(deliveries: Iterable[Delivery]) -> Iterator[list[Delivery]]:
    some: list[Delivery] = []
    size_bytes = 0
    for delivery in deliveries:
        some.append(delivery)
        size_bytes += len(delivery.frame)
        if size_bytes > DELIVERED_AT_ONCE_MAX_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some
