"""Takes what `notifier.events` brings: inboxes written, deliveries out. A batch becomes group commits.

    known events? → note the new ones as begun → inboxes → deliveries, confirmed → note them as done → acks

Crash or failure between any two steps: nothing was acknowledged, so the events come again. Those that are done are
passed over; those that are begun find their entries on disk and are delivered again with the same seqs and keys, by
which gateways drop repeats.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, assert_never

import msgspec

from notifier import metrics
from notifier.assignment import Posting
from notifier.audience import USERS_MAX, Listeners, Users
from notifier.inbox import Inboxes
from notifier.notices import Addressed, Entry, address, entry_frame, listeners_frame
from notifier.sending import Publisher, confirmed
from notifier.standings import Standings
from notifier.store import Conflict, NotifierStore, Record
from notifier.verdicts import VERDICTS, Verdict, read_verdict
from shared import logs
from shared.consumer import Line
from shared.errors import Malformed, Unavailable
from shared.events import MARKET_TICK, USER_UPDATED, decode_event
from shared.topology import Delivery, DeliveryClass, inbox_channel

log = logs.get(__name__)

COMMIT_RECIPIENTS = USERS_MAX
SLICE_RECIPIENTS = 1_000  # stored and delivered before the next: the first of 10,000 do not wait for the last
DELIVERED_AT_ONCE_MAX_BYTES = 4 * 1024 * 1024
CONFLICTS_MAX = 10

Arrival = Addressed | Verdict
A = TypeVar("A", Arrival, Addressed)

# Other services have queues of their own for these, and dead-letter what is wrong with them.
_ELSEWHERE = frozenset({MARKET_TICK, USER_UPDATED})


class Intake:
    """Handles the batches of `notifier.events`, one after another."""

    def __init__(
        self,
        store: NotifierStore,
        inboxes: Inboxes,
        standings: Standings,
        bus: Publisher,
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._inboxes = inboxes
        self._standings = standings
        self._bus = bus
        self._clock_ms = clock_ms

    async def handle(self, lines: list[Line]) -> None:
        """Attend to a batch. The handler of `Bus.consume`. Raises Unavailable; then nothing may be acknowledged."""
        arrivals: dict[str, Arrival] = {}
        for line in lines:
            if (arrival := self._read(line)) is not None:
                arrivals.setdefault(_key(arrival), arrival)
        for some in _by_recipients(arrivals.values(), COMMIT_RECIPIENTS):
            started_s = time.perf_counter()
            await self._commit(some)
            metrics.COMMIT_SECONDS.observe(time.perf_counter() - started_s)

    def _read(self, line: Line) -> Arrival | None:
        """What a line brings; None if that is nothing for us, and the line rejected if it is no event."""
        if line.routing_key in _ELSEWHERE:
            metrics.EVENTS.labels("elsewhere").inc()
            return None
        try:
            event = decode_event(line.body)
            if event.type in _ELSEWHERE:
                raise Malformed(f"type: {event.type} needs the routing key {event.type}")
            now_ms = self._clock_ms()
            return read_verdict(event, now_ms) if event.type in VERDICTS else address(event, now_ms)
        except Malformed as error:
            line.reject(str(error))
            metrics.EVENTS.labels("refused").inc()
            return None

    async def _commit(self, arrivals: Sequence[Arrival]) -> None:
        for _ in range(CONFLICTS_MAX):
            try:
                await self._commit_once(arrivals)
                return
            except Conflict as conflict:
                log.info("commit_conflict", reason=str(conflict), events=len(arrivals))
                metrics.CONFLICTS.inc()
        raise Unavailable(f"still in conflict with another writer after {CONFLICTS_MAX} tries")

    async def _commit_once(self, arrivals: Sequence[Arrival]) -> None:
        now_ms = self._clock_ms()
        records = await self._store.records([_key(arrival) for arrival in arrivals])
        fresh = [_record(arrival) for arrival in arrivals if _key(arrival) not in records]
        await self._store.insert_records(fresh, now_ms)
        pending = _pending(arrivals, records)
        await self._standings.change([arrival for arrival in pending if isinstance(arrival, Verdict)], now_ms)
        addressed = [arrival for arrival in pending if isinstance(arrival, Addressed)]
        for some in _by_recipients(addressed, SLICE_RECIPIENTS):
            postings = [Posting(item.notice, item.audience.ids) for item in some if isinstance(item.audience, Users)]
            entries = await self._inboxes.keep(postings, records.keys(), now_ms)
            for deliveries in _by_size(_deliveries(some, entries)):
                await confirmed(self._bus, deliveries)
        await self._store.mark_done([_key(arrival) for arrival in pending])
        metrics.EVENTS.labels("delivered").inc(len(pending))
        metrics.EVENTS.labels("repeated").inc(len(arrivals) - len(pending))


def _key(arrival: Arrival) -> str:
    return arrival.key if isinstance(arrival, Verdict) else arrival.notice.key


def _record(arrival: Arrival) -> Record:
    if isinstance(arrival, Verdict):
        return Record(arrival.key, arrival.at_ms)
    notice = arrival.notice
    return Record(notice.key, notice.created_at_ms, notice if isinstance(arrival.audience, Users) else None)


def _pending(arrivals: Iterable[Arrival], records: Mapping[str, Record]) -> list[Arrival]:
    """What is not done yet; what an earlier try began goes on as it was begun."""
    pending: list[Arrival] = []
    for arrival in arrivals:
        record = records.get(_key(arrival))
        if record is None:
            pending.append(arrival)
        elif not record.is_done:
            pending.append(_as_begun(arrival, record))
    return pending


def _as_begun(arrival: Arrival, record: Record) -> Arrival:
    if isinstance(arrival, Verdict):
        return msgspec.structs.replace(arrival, at_ms=record.created_at_ms)
    notice = record.notice or msgspec.structs.replace(arrival.notice, created_at_ms=record.created_at_ms)
    return Addressed(notice, arrival.audience)


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


def _by_recipients(arrivals: Iterable[A], recipients_max: int) -> Iterator[list[A]]:
    """All in order, as many together as have that many recipients. An event with more of them is split."""
    some: list[A] = []
    room = recipients_max
    for arrival in arrivals:
        for part, count in _parts(arrival, recipients_max):
            if count > room:
                yield some
                some, room = [], recipients_max
            some.append(part)
            room -= count
    if some:
        yield some


def _parts(arrival: A, recipients_max: int) -> Iterator[tuple[A, int]]:
    """The arrival, or as many of it as its users make, each with the count of its recipients."""
    if isinstance(arrival, Verdict) or not isinstance(arrival.audience, Users):
        yield arrival, 1
        return
    ids = arrival.audience.ids
    for start in range(0, len(ids), recipients_max):
        part = ids[start : start + recipients_max]
        yield msgspec.structs.replace(arrival, audience=Users(part)), len(part)


def _by_size(deliveries: Iterable[Delivery]) -> Iterator[list[Delivery]]:
    """All in order, some 4 MB together at most: what waits for the broker is bounded."""
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
