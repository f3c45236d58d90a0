"""Takes what `notifier.verdicts` brings: standings changed on disk, then told to every gateway.

    known events? → note the new ones as begun → standings → deliveries, confirmed → note them as done → acks

As with all events, what is done again after a crash or failure does no harm: the same standings, with higher versions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from notifier import metrics
from notifier.events.notifications import Record
from notifier.events.publishing import Publisher, confirmed
from notifier.events.store import EventStore, until_no_conflict
from notifier.revocations.rules import RevocationEvent, apply, read_revocation_event
from notifier.revocations.store import RevocationStore
from shared.bus.consumer import Line
from shared.bus.delivery import CONTROL_CHANNEL, ControlKind, Delivery, DeliveryClass
from shared.bus.events import decode_event
from shared.commands.notifier import Revocation
from shared.encoding import to_json
from shared.errors import Malformed


class RevocationConsumer:
    """Handles the batches of `notifier.verdicts`, one after another; so there is one writer of standings."""

    def __init__(self, events: EventStore, store: RevocationStore, bus: Publisher, clock_ms: Callable[[], int]) -> None:
        self._events = events
        self._store = store
        self._bus = bus
        self._clock_ms = clock_ms

    async def handle(self, lines: list[Line]) -> None:
        """Attend to a batch. The handler of `Bus.consume`. Raises Unavailable; then nothing may be acknowledged."""
        verdicts: dict[str, RevocationEvent] = {}
        for line in lines:
            try:
                verdict = read_revocation_event(decode_event(line.body), self._clock_ms())
            except Malformed as error:
                line.reject(str(error))
                metrics.EVENTS.labels("refused").inc()
                continue
            verdicts.setdefault(verdict.key, verdict)
        if verdicts:
            await until_no_conflict(lambda: self._commit(verdicts))

    async def _commit(self, verdicts: dict[str, RevocationEvent]) -> None:
        now_ms = self._clock_ms()
        records = await self._events.records(verdicts)
        fresh = [Record(verdict.key, verdict.at_ms) for verdict in verdicts.values() if verdict.key not in records]
        await self._events.insert_records(fresh, now_ms)
        pending = _pending(verdicts.values(), records)
        await self._change(pending, now_ms)
        await self._events.mark_done([verdict.key for verdict in pending])
        metrics.EVENTS.labels("delivered").inc(len(pending))
        metrics.EVENTS.labels("repeated").inc(len(verdicts) - len(pending))

    async def _change(self, verdicts: Sequence[RevocationEvent], now_ms: int) -> None:
        if not verdicts:
            return
        standings = await self._store.standings({verdict.user_id for verdict in verdicts})
        # The clock keeps versions growing when the highest has expired; the highest, when the clock was set back.
        version = max(now_ms, await self._store.highest_version() + 1)
        for offset, verdict in enumerate(verdicts):
            standings[verdict.user_id] = apply(verdict, standings.get(verdict.user_id), version + offset)
        changed = sorted(standings.values(), key=lambda standing: standing.version)
        await self._store.put(changed, now_ms)
        await confirmed(self._bus, map(_told, changed))
        metrics.STANDINGS_CHANGED.inc(len(changed))


def _pending(verdicts: Iterable[RevocationEvent], records: Mapping[str, Record]) -> list[RevocationEvent]:
    """What is not done yet; what an earlier try began counts from when it was begun."""
    pending: list[RevocationEvent] = []
    for verdict in verdicts:
        record = records.get(verdict.key)
        if record is None:
            pending.append(verdict)
        elif not record.is_done:
            pending.append(msgspec.structs.replace(verdict, at_ms=record.created_at_ms))
    return pending


def _told(standing: Revocation) -> Delivery:
    return Delivery(CONTROL_CHANNEL, DeliveryClass.CONTROL, 0, ControlKind.REVOCATION, to_json(standing))
