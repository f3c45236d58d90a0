"""The commit of a batch of events, for both consumers: record new events, do the work, mark the events as done.

    known events? → insert records of the new ones → the consumer's own work → mark as done → acks

Crash or failure between any two steps: nothing was acknowledged, so the events are delivered again. Events that are
done are skipped; the others keep the time of their first attempt, and the work is idempotent.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from notifier import metrics
from notifier.events.notifications import Record, TrackedEvent, pending_of
from notifier.events.store import EventStore
from shared.errors import Unavailable, WriteConflict
from shared.telemetry import logs

log = logs.get(__name__)

CONFLICTS_MAX = 10


E = TypeVar("E", bound=TrackedEvent)

Work = Callable[[list[E], Mapping[str, Record], int], Awaitable[None]]


class EventCommit:
    """Runs a consumer's work on the events that are not done yet. One writer at a time is expected.

    A second writer causes a WriteConflict; then the commit starts again, at most 10 times.
    """

    def __init__(self, events: EventStore, clock_ms: Callable[[], int]) -> None:
        self._events = events
        self._clock_ms = clock_ms

    async def run(self, events: Sequence[E], work: Work[E]) -> None:
        """Run `work(pending, records, now_ms)` for the events that are not done. Raises Unavailable.

        `records` holds the events that were known before, by key.
        """
        for _ in range(CONFLICTS_MAX):
            try:
                await self._run_once(events, work)
                return
            except WriteConflict as conflict:
                log.info("commit_conflict", reason=str(conflict))
                metrics.CONFLICTS.inc()
        raise Unavailable(f"still in conflict with another writer after {CONFLICTS_MAX} tries")

    async def _run_once(self, events: Sequence[E], work: Work[E]) -> None:
        now_ms = self._clock_ms()
        records = await self._events.records([event.key for event in events])
        fresh = [event.to_record() for event in events if event.key not in records]
        await self._events.insert_records(fresh, now_ms)
        pending = pending_of(events, records)
        await work(pending, records, now_ms)
        await self._events.mark_done([event.key for event in pending])
        metrics.EVENTS.labels("delivered").inc(len(pending))
        metrics.EVENTS.labels("repeated").inc(len(events) - len(pending))
