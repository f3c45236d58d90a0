"""Presence: the users with a socket here, reported to chat_service in batches under a lease.

`Roster` decides what to report, without I/O; `Reporter` sends the reports.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway import metrics
from gateway.backend import Backend
from shared.commands.chat import PresenceReported, ReportPresence
from shared.commands.command import GATEWAY
from shared.errors import Refusal, Unavailable
from shared.telemetry import logs
from shared.waiting import is_set_within

log = logs.get(__name__)

GRACE_S = 5.0
RENEW_INTERVAL_S = 5.0
REPORT_INTERVAL_S = 0.05
QUIET_INTERVAL_S = 0.25
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Report:
    """The changes since the last confirmed report; see `ReportPresence`."""

    came: tuple[str, ...]
    went: tuple[str, ...]
    is_full: bool


class Roster:
    """Sockets by user. A user's first socket is reported at once, the end of the last one after a grace period of 5 s.

    `next_report` returns a report, and `confirm` records that it arrived. Until then every report repeats the
    unconfirmed changes in their latest state: reports are at-least-once and idempotent.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._sockets: dict[str, int] = {}
        self._reported: set[str] = set()
        self._unconfirmed: set[str] = set()  # in reports that may or may not have arrived
        self._gone_at_s: dict[str, float] = {}
        self._full = True  # the first report begins the lease

    def opened(self, user_id: str) -> None:
        """Count a socket of the user that has authenticated."""
        self.changed.set()
        self._sockets[user_id] = self._sockets.get(user_id, 0) + 1
        self._gone_at_s.pop(user_id, None)

    def closed(self, user_id: str, now_s: float) -> None:
        """Count a closed socket of the user."""
        left = self._sockets[user_id] - 1
        if left:
            self._sockets[user_id] = left
        else:
            del self._sockets[user_id]
            self._gone_at_s[user_id] = now_s

    def lease_lost(self) -> None:
        """Schedule a full report: the lease had expired, so chat_service dropped earlier ones."""
        self._full = True

    def has_changes(self, now_s: float) -> bool:
        """Return whether a report would contain anything. O(1), since it is called 20 times per second."""
        if self._full or self._unconfirmed or len(self._reported) != len(self._sockets) + len(self._gone_at_s):
            return True
        oldest = next(iter(self._gone_at_s.values()), now_s)
        return now_s - oldest >= GRACE_S

    def next_report(self, now_s: float) -> Report:
        """Return the report to send now."""
        maybe_reported = self._reported | self._unconfirmed
        for user_id, at_s in list(self._gone_at_s.items()):
            if now_s - at_s >= GRACE_S or user_id not in maybe_reported:
                del self._gone_at_s[user_id]
        here = self._sockets.keys() | self._gone_at_s.keys()
        if self._full:
            report = Report(tuple(here), (), True)
        else:
            report = Report(tuple(here - (self._reported - self._unconfirmed)), tuple(maybe_reported - here), False)
        self._unconfirmed.update(report.came, report.went)
        return report

    def confirm(self, report: Report) -> None:
        """Record that a report arrived."""
        self._full = False
        self._unconfirmed.clear()
        self._reported = (set() if report.is_full else self._reported) | set(report.came)
        self._reported -= set(report.went)


class Reporter:
    """Renews the lease and sends the reports, one at a time."""

    def __init__(self, roster: Roster, backend: Backend, node_id: str, clock_s: Callable[[], float]) -> None:
        self._roster = roster
        self._backend = backend
        self._node_id = node_id
        self._clock_s = clock_s
        self._leased_until_s = 0.0
        metrics.PRESENCE_LEASE_SECONDS.set_function(lambda: max(self._leased_until_s - self._clock_s(), 0.0))

    async def readiness(self) -> str | None:
        """Return None while the lease is valid; otherwise the reason."""
        return None if self._clock_s() < self._leased_until_s else "presence: no lease"

    async def run(self) -> None:
        """Report until cancelled."""
        renewed_at_s = -RENEW_INTERVAL_S
        while True:
            now_s = self._clock_s()
            if now_s - renewed_at_s >= RENEW_INTERVAL_S or self._roster.has_changes(now_s):
                if await self._report(self._roster.next_report(now_s)):
                    renewed_at_s = now_s
                    self._leased_until_s = now_s + 3 * RENEW_INTERVAL_S
                else:
                    await asyncio.sleep(RETRY_S)
            await self._wait()

    async def _wait(self) -> None:
        """Wait for a new socket, or for the next check of grace periods."""
        if await is_set_within(self._roster.changed, QUIET_INTERVAL_S):
            self._roster.changed.clear()
            await asyncio.sleep(REPORT_INTERVAL_S)

    async def leave(self) -> None:
        """Report that the gateway stops: its users have a grace period to reconnect elsewhere."""
        await self._report(Report((), (), False), is_leaving=True)

    async def _report(self, report: Report, *, is_leaving: bool = False) -> bool:
        command = ReportPresence(
            **self._backend.head(GATEWAY),
            node_id=self._node_id,
            came=report.came,
            went=report.went,
            is_full=report.is_full,
            is_leaving=is_leaving,
        )
        try:
            answer: PresenceReported = await self._backend.report_presence(command)
        except (Unavailable, Refusal) as error:
            log.warning("presence_report_failed", reason=str(error))
            return False
        if not answer.lease_is_known:
            log.warning("presence_lease_lost")
            self._roster.lease_lost()
            return False
        self._roster.confirm(report)
        return True
