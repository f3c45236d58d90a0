"""Presence. A user is online while any gateway with a lease holds a socket of theirs.

Gateways report which users came online (first socket) and went offline (last socket, after a grace period) in batches
of at most 500 users, one at a time, and renew their leases. The queue has one active consumer, so one process decides
at a time. It writes the changes as unannounced and answers the report; `announcer` notifies the rooms. Once a gateway's
lease is over, the sweep takes its users offline, batch by batch.
"""

import asyncio
from collections.abc import Callable, Iterator

import msgspec

from chat_service import metrics
from chat_service.people.presence_record import presence_view
from chat_service.people.presence_store import PresenceStore
from shared.bus.consumer import Line
from shared.bus.publisher import Publisher
from shared.bus.query_server import decode_request, unavailable
from shared.commands.chat_queries import PRESENCE_BATCH_MAX, PresenceReported, ReportPresence
from shared.commands.command import refusal_line, reply_line
from shared.errors import Unavailable
from shared.mongo import chunks
from shared.protocol.server_frames import PresenceState
from shared.telemetry import logs

log = logs.get(__name__)

_decoder = msgspec.json.Decoder(ReportPresence)


class PresenceTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The timing of presence: a dead gateway's users are offline within 17 s, or 25 s if it was the only one.

    `claim_ms` bounds the duration of one batch of a sweep; after that time another replica continues it. While no
    gateway has a valid lease, the reports may be stuck behind a frozen consumer, so leases are then swept `silence_ms`
    after their expiry instead of at once. The broker replaces a frozen consumer after 4 s at the earliest, so a write
    within `batch_ms` after its reports arrived precedes those of the next consumer. A write under way may land after
    the sweep of its lease, so `last_sweep_ms` later the lease is swept again.
    """

    lease_ms: int = 15_000
    leaving_grace_ms: int = 5_000
    silence_ms: int = 8_000
    claim_ms: int = 10_000
    last_sweep_ms: int = 60_000
    batch_ms: int = 4_000
    sweep_interval_s: float = 2.0


class Presence:
    """Handles reports, sweeps dead gateways, answers who is online. `announce_soon` is called after each change."""

    def __init__(
        self,
        store: PresenceStore,
        bus: Publisher,
        node_id: str,
        clock_ms: Callable[[], int],
        times: PresenceTimes,
        announce_soon: Callable[[], None],
    ) -> None:
        self._store = store
        self._times = times
        self._bus = bus
        self._node_id = node_id
        self._clock_ms = clock_ms
        self._announce_soon = announce_soon
        self._leased_until_ms: dict[str, int] = {}  # as renewed by this process

    # Reports --------------------------------------------------------------------------------------------------------

    async def handle(self, lines: list[Line]) -> None:
        """Handle a batch of reports: the handler of `Bus.consume` on `chat.presences`.

        Renew leases first. Refuse a failed report instead of retrying it: the gateway sends its latest state again.
        After a stall, refuse the remaining reports too, since another consumer may have written later ones.
        """
        began_ms = self._clock_ms()
        reports = [(line, report) for line in lines if (report := decode_request(line, _decoder)) is not None]
        reports.sort(key=lambda pair: bool(pair[1].came or pair[1].went or pair[1].is_leaving))
        for line, report in reports:
            try:
                if self._clock_ms() - began_ms >= self._times.batch_ms:
                    raise Unavailable("earlier reports took too long")
                known = await self._apply(report)
                answer = reply_line(report.id, PresenceReported(lease_is_known=known))
            except Unavailable as error:
                log.warning("presence_report_failed", reason=str(error))
                answer = refusal_line(report.id, unavailable(error))
            self._bus.reply(line.reply_to or "", answer)

    async def _apply(self, report: ReportPresence) -> bool:
        """Apply a report and return whether its lease is known."""
        metrics.PRESENCE_REPORTS.labels(_kind_of(report)).inc()
        lease = report.node_id
        if report.is_leaving:
            self._leased_until_ms.pop(lease, None)
            return await self._store.renew(lease, self._clock_ms() + self._times.leaving_grace_ms, is_new=False)
        is_renewal = report.begins_lease or not (report.came or report.went)
        if is_renewal and not await self._renew(lease, is_new=report.begins_lease):
            return False
        for came, went in _batches(report):
            if not await self._change(lease, came, went):
                return False
        return True

    async def _change(self, lease: str, came: list[str], went: list[str]) -> bool:
        """Write a batch under a valid lease. Without one, leave no trace of it and return False."""
        now_ms = self._clock_ms()
        until_ms = self._leased_until_ms.get(lease, 0)
        if until_ms - now_ms < self._times.lease_ms // 2 and not await self._renew(lease):
            return False
        await self._store.change(lease, came, went, now_ms)
        is_late = self._clock_ms() >= self._leased_until_ms[lease]  # this process stalled
        if is_late and not await self._renew(lease):
            await self._store.change(lease, (), came, now_ms)  # the sweep of the lease may have missed these users
            return False
        self._announce_soon()
        return True

    async def _renew(self, lease: str, *, is_new: bool = False) -> bool:
        now_ms = self._clock_ms()
        known = await self._store.renew(lease, now_ms + self._times.lease_ms, is_new=is_new)
        if is_new:
            self._leased_until_ms = {one: until for one, until in self._leased_until_ms.items() if until > now_ms}
        if known:
            self._leased_until_ms[lease] = now_ms + self._times.lease_ms
        else:
            self._leased_until_ms.pop(lease, None)
        return known

    # Dead gateways --------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Take users of dead gateways offline, every 2 s, until cancelled."""
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
            log.info("gateway_lease_expired", gateway=dead)
            metrics.GATEWAYS_EXPIRED.inc()
            if await self._expire(dead):
                await self._store.end(dead, self._clock_ms() + self._times.last_sweep_ms)
        while (ended := await self._store.claim_ended(now_ms, self._node_id, now_ms + claim_ms)) is not None:
            if await self._expire(ended):
                await self._store.forget(ended)

    async def _expire(self, dead: str) -> bool:
        """Take the users of a claimed lease offline, a batch at a time; return False if another replica continues.

        Removed users are not found again, so another sweep continues where this one failed.
        """
        while users := await self._store.users_of(dead, PRESENCE_BATCH_MAX):
            now_ms = self._clock_ms()
            await self._store.change(dead, (), users, now_ms)
            self._announce_soon()
            if not await self._store.extend_claim(dead, self._node_id, now_ms + self._times.claim_ms):
                return False
        return True

    # Queries --------------------------------------------------------------------------------------------------------

    async def state(self, user_ids: tuple[str, ...]) -> PresenceState:
        """Return the presence of these users, in their order."""
        found = await self._store.records(user_ids)
        return PresenceState(users=tuple(presence_view(user_id, found.get(user_id)) for user_id in user_ids))


def _kind_of(report: ReportPresence) -> str:
    if report.is_leaving:
        return "leaving"
    if report.begins_lease:
        return "full"
    return "changes" if report.came or report.went else "renewal"


def _batches(report: ReportPresence) -> Iterator[tuple[list[str], list[str]]]:
    """Yield arrivals and departures, at most 500 together; a user in both has arrived."""
    changes = dict.fromkeys(report.went, False) | dict.fromkeys(report.came, True)
    for some in chunks(list(changes.items()), PRESENCE_BATCH_MAX):
        yield [user for user, is_here in some if is_here], [user for user, is_here in some if not is_here]
