"""The consumer of `notifier.verdicts`: stores revocations and bans, then sends them to every gateway.

    known events? → insert records → put revocations → deliveries, confirmed → mark as done → acks

Work repeated after a crash is harmless: it writes the same revocations with higher versions.
"""

from collections.abc import Callable, Mapping, Sequence

from notifier import metrics
from notifier.events.commit import EventCommit
from notifier.events.notifications import Record
from notifier.events.store import EventStore
from notifier.revocations.rules import RevocationEvent, apply, read_revocation_event
from notifier.revocations.store import RevocationStore
from shared.bus.confirms import confirmed
from shared.bus.consumer import Line
from shared.bus.delivery import CONTROL_CHANNEL, ControlKind, Delivery, DeliveryKind
from shared.bus.events import decode_event
from shared.bus.publisher import Publisher
from shared.commands.notifier import Revocation
from shared.encoding import to_json
from shared.errors import Malformed


class RevocationConsumer:
    """Handles the batches of `notifier.verdicts` one after another, so that revocations have one writer."""

    def __init__(self, events: EventStore, store: RevocationStore, bus: Publisher, clock_ms: Callable[[], int]) -> None:
        self._commit = EventCommit(events, clock_ms)
        self._store = store
        self._bus = bus
        self._clock_ms = clock_ms

    async def handle(self, lines: list[Line]) -> None:
        """Apply a batch: the handler of `Bus.consume`. Raises Unavailable; then nothing may be acknowledged."""
        events: dict[str, RevocationEvent] = {}
        for line in lines:
            try:
                event = read_revocation_event(decode_event(line.body), self._clock_ms())
            except Malformed as error:
                line.reject(str(error))
                metrics.EVENTS.labels("refused").inc()
                continue
            events.setdefault(event.key, event)
        if events:
            await self._commit.run(list(events.values()), self._put)

    async def _put(self, events: Sequence[RevocationEvent], _: Mapping[str, Record], now_ms: int) -> None:
        if not events:
            return
        revocations = await self._store.revocations({event.user_id for event in events})
        # Versions always grow: thanks to the clock if the highest one has expired, thanks to the + 1 if the clock was
        # set back.
        version = max(now_ms, await self._store.highest_version() + 1)
        for offset, event in enumerate(events):
            revocations[event.user_id] = apply(event, revocations.get(event.user_id), version + offset)
        changed = sorted(revocations.values(), key=lambda revocation: revocation.version)
        await self._store.put(changed, now_ms)
        deliveries = list(map(_delivery, changed))
        await confirmed(map(self._bus.deliver, deliveries))
        metrics.DELIVERIES.inc(len(deliveries))
        metrics.REVOCATIONS_CHANGED.inc(len(changed))


def _delivery(revocation: Revocation) -> Delivery:
    return Delivery(CONTROL_CHANNEL, DeliveryKind.CONTROL, 0, ControlKind.REVOCATION, to_json(revocation))
