"""Presence. A user is online while any gateway with a lease holds a socket of theirs.

Gateways report who came online (first socket) and who went offline (last socket, after a grace period) in batches, one
report at a time; a report also renews the lease. The queue has one active consumer, so one process decides at a time.
The state is written first, marked as unannounced; then the rooms are notified and the mark is cleared. After a crash in
between, the sweep notifies them: no change is lost. Once a gateway's lease is over, the sweep takes its users offline.
"""

import asyncio
from collections.abc import Callable

import msgspec

from chat_service import metrics
from chat_service.people.presence_store import PresenceRecord, PresenceStore
from shared.bus.confirms import confirmed
from shared.bus.consumer import Line
from shared.bus.delivery import Delivery, DeliveryKind, room_channel, user_channel
from shared.bus.publisher import Publisher
from shared.bus.query_server import decode_request
from shared.commands.chat import PresenceReported, ReportPresence
from shared.commands.command import reply_line
from shared.errors import Unavailable
from shared.protocol.server_frames import PresenceData, PresenceState, PresenceView, frame
from shared.telemetry import logs
from shared.times import to_iso

log = logs.get(__name__)

ANNOUNCE_AT_ONCE = 500

_decoder = msgspec.json.Decoder(ReportPresence)


class PresenceTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The timing of presence: a dead gateway's users are offline within 17 s, or 25 s if it was the only one.

    `claim_ms` bounds the duration of a sweep; after that time another sweep announces its leftovers. If no gateway
    reports at all, the reports may be stuck behind a frozen consumer until the broker replaces it; then leases expire
    `silence_ms` later.
    """

    lease_ms: int = 15_000
    leaving_grace_ms: int = 5_000
    silence_ms: int = 8_000
    claim_ms: int = 10_000
    sweep_interval_s: float = 2.0


class Presence:
    """Handles reports, sweeps dead gateways, answers who is online."""

    def __init__(
        self, store: PresenceStore, bus: Publisher, node_id: str, clock_ms: Callable[[], int], times: PresenceTimes
    ) -> None:
        self._store = store
        self._times = times
        self._bus = bus
        self._node_id = node_id
        self._clock_ms = clock_ms

    async def handle(self, lines: list[Line]) -> None:
        """Handle a batch of reports: the handler of `Bus.consume` on `chat.presences`. Raises Unavailable."""
        for line in lines:
            report = decode_request(line, _decoder)
            if report is not None:
                known = await self._apply(report)
                self._bus.reply(line.reply_to or "", reply_line(report.id, PresenceReported(lease_is_known=known)))

    async def _apply(self, report: ReportPresence) -> bool:
        kind = "leaving" if report.is_leaving else "full" if report.is_full else "changes"
        metrics.PRESENCE_REPORTS.labels(kind).inc()
        now_ms = self._clock_ms()
        lease_ms = self._times.leaving_grace_ms if report.is_leaving else self._times.lease_ms
        known = await self._store.renew(report.node_id, now_ms + lease_ms, is_new=report.is_full)
        if not known:
            return False
        went = set(report.went)
        if report.is_full:
            went |= await self._store.users_of(report.node_id) - set(report.came)
        await self._change(report.node_id, set(report.came), went - set(report.came), now_ms)
        return True

    async def _change(self, node_id: str, came: set[str], went: set[str], now_ms: int) -> None:
        if came or went:
            await self._store.change(node_id, came, went, now_ms)
            await self._announce(await self._store.unannounced(came | went))

    async def sweep(self) -> None:
        """Take users of dead gateways offline and announce changes that a crash left, every 2 s, until cancelled."""
        while True:
            await asyncio.sleep(self._times.sweep_interval_s)
            try:
                await self.sweep_once()
            except Unavailable as error:
                log.warning("presence_sweep_delayed", reason=str(error))

    async def sweep_once(self) -> None:
        """Sweep once. Raises Unavailable."""
        now_ms, claim_ms = self._clock_ms(), self._times.claim_ms
        is_any_heard = await self._store.has_valid_lease(now_ms)
        before_ms = now_ms if is_any_heard else now_ms - self._times.silence_ms
        while (dead := await self._store.claim_expired(before_ms, self._node_id, now_ms + claim_ms)) is not None:
            await self._expire(dead, now_ms)
        await self._announce(await self._store.unannounced_before(now_ms - claim_ms, ANNOUNCE_AT_ONCE))

    async def _expire(self, dead: str, now_ms: int) -> None:
        users = await self._store.users_of(dead)
        log.info("gateway_lease_expired", gateway=dead, users=len(users))
        metrics.GATEWAYS_EXPIRED.inc()
        await self._change(dead, set(), users, now_ms)
        await self._store.forget(dead)

    async def _announce(self, records: list[PresenceRecord]) -> None:
        """Notify the rooms of users whose status differs from the last notification."""
        changed = [record for record in records if record.is_online != record.announced_online]
        if changed:
            await self._store.mark_members(changed)
            audience = await self._store.channels_of([record.user_id for record in changed])
            confirms = []
            for record in changed:
                data = presence_frame(record)
                rooms, partners = audience[record.user_id]
                channels = [*map(room_channel, rooms), *map(user_channel, partners)]
                confirms += [
                    self._bus.deliver(Delivery(channel, DeliveryKind.TRANSIENT, 0, "", data)) for channel in channels
                ]
                metrics.PRESENCE_CHANGES.labels("online" if record.is_online else "offline").inc()
            await confirmed(confirms)
        await self._store.mark_announced(records)

    async def state(self, user_ids: tuple[str, ...]) -> PresenceState:
        """Return the presence of these users, in their order."""
        found = await self._store.records(user_ids)
        return PresenceState(users=tuple(presence_view(user_id, found.get(user_id)) for user_id in user_ids))


def presence_view(user_id: str, record: PresenceRecord | None) -> PresenceView:
    """Return a user's presence as clients see it."""
    seen_ms = None if record is None else record.last_seen_at_ms
    return PresenceView(
        user_id=user_id,
        status="online" if record is not None and record.is_online else "offline",
        last_seen_at=None if seen_ms is None else to_iso(seen_ms),
    )


def presence_frame(record: PresenceRecord) -> bytes:
    """Return the `user:online` or `user:offline` frame."""
    if record.is_online:
        return frame("user:online", PresenceData(user_id=record.user_id, status="online"))
    seen = None if record.last_seen_at_ms is None else to_iso(record.last_seen_at_ms)
    return frame("user:offline", PresenceData(user_id=record.user_id, status="offline", last_seen_at=seen))
