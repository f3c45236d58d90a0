"""Presence: the users with a socket here, reported to chat_service in batches under a lease.

`Roster` decides what to report, without I/O; `Reporter` renews the lease and sends the batches.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, takewhile

from gateway import metrics
from gateway.backend import Backend
from shared.commands.chat_queries import PRESENCE_BATCH_MAX, PresenceReported, ReportPresence
from shared.commands.command import GATEWAY
from shared.errors import Refusal, Unavailable
from shared.telemetry import logs
from shared.waiting import is_set_within

log = logs.get(__name__)

GRACE_S = 5.0
RENEW_INTERVAL_S = 5.0
GATHER_S = 0.05
QUIET_INTERVAL_S = 0.25
RETRY_S = 0.5
# The pause after a batch, so that changes gather: a batch costs chat_service a write, however few users it has. A full
# batch is followed at once.
PAUSE_PER_USER_S = 0.02
PAUSE_MAX_S = 2.0


@dataclass(frozen=True, slots=True)
class PresenceBatch:
    """At most 500 users whose state chat_service may not know."""

    came: tuple[str, ...] = ()
    went: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.came) + len(self.went)


class Roster:
    """Sockets by user. A user's first socket is reported at once, the end of the last one after a grace period of 5 s.

    `next_batch` returns a batch of changes, and `confirm` records that it arrived. Until then `next_batch` repeats
    these users, in their latest state: batches are at-least-once and idempotent, and a confirmed one is not repeated.
    Every method except `lease_lost` costs O(1), or O(batch). Bounded by MAX_CONNECTIONS.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._sockets: dict[str, int] = {}
        self._reported: set[str] = set()
        self._unconfirmed: set[str] = set()  # in the batch that may or may not have arrived
        self._pending: dict[str, None] = {}  # users whose state may differ from the reported one, oldest first
        self._gone_at_s: dict[str, float] = {}  # oldest first

    def opened(self, user_id: str) -> None:
        """Count a socket of the user that has authenticated."""
        sockets = self._sockets.get(user_id, 0)
        self._sockets[user_id] = sockets + 1
        if sockets == 0 and self._gone_at_s.pop(user_id, None) is None:
            self._pending[user_id] = None
            self.changed.set()

    def closed(self, user_id: str, now_s: float) -> None:
        """Count a closed socket of the user."""
        left = self._sockets[user_id] - 1
        if left:
            self._sockets[user_id] = left
            return
        del self._sockets[user_id]
        if self._may_be_reported(user_id):
            self._gone_at_s[user_id] = now_s
        else:
            self._pending.pop(user_id, None)

    def lease_lost(self) -> None:
        """Report all users again: chat_service takes those of the lost lease offline."""
        self._reported.clear()
        self._unconfirmed.clear()
        self._pending = dict.fromkeys([*self._sockets, *self._gone_at_s])

    def has_changes(self, now_s: float) -> bool:
        """Return whether the next batch may contain anything."""
        return bool(self._pending) or now_s - next(iter(self._gone_at_s.values()), now_s) >= GRACE_S

    def next_batch(self, now_s: float) -> PresenceBatch:
        """Return the batch to send now, perhaps an empty one."""
        for user_id, _ in list(takewhile(lambda gone: now_s - gone[1] >= GRACE_S, self._gone_at_s.items())):
            del self._gone_at_s[user_id]
            self._pending[user_id] = None
        came, went = [], []
        for user_id in list(islice(self._pending, PRESENCE_BATCH_MAX)):
            is_here = self._is_here(user_id)
            if is_here and (user_id not in self._reported or user_id in self._unconfirmed):
                came.append(user_id)
            elif not is_here and self._may_be_reported(user_id):
                went.append(user_id)
            else:
                del self._pending[user_id]
        self._unconfirmed.update(came, went)
        return PresenceBatch(tuple(came), tuple(went))

    def confirm(self, batch: PresenceBatch) -> None:
        """Record that a batch arrived."""
        self._reported.update(batch.came)
        self._reported.difference_update(batch.went)
        for user_id in (*batch.came, *batch.went):
            self._unconfirmed.discard(user_id)
            if self._is_here(user_id) is (user_id in self._reported):
                self._pending.pop(user_id, None)

    def _is_here(self, user_id: str) -> bool:
        return user_id in self._sockets or user_id in self._gone_at_s

    def _may_be_reported(self, user_id: str) -> bool:
        return user_id in self._reported or user_id in self._unconfirmed


class Reporter:
    """Renews the lease and sends the batches, one at a time. A slow batch does not delay the renewal."""

    def __init__(self, roster: Roster, backend: Backend, node_id: str, clock_s: Callable[[], float]) -> None:
        self._roster = roster
        self._backend = backend
        self._node_id = node_id
        self._clock_s = clock_s
        self._lease = node_id
        self._leases_lost = 0
        self._begun = asyncio.Event()
        self._lost = asyncio.Event()
        self._leased_until_s = 0.0
        metrics.PRESENCE_LEASE_SECONDS.set_function(lambda: max(self._leased_until_s - self._clock_s(), 0.0))

    async def run(self) -> None:
        """Report until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_lease(), name="presence-lease")
            tasks.create_task(self._send_batches(), name="presence-batches")

    async def leave(self) -> None:
        """Report that the gateway stops: its users have a grace period to reconnect elsewhere."""
        await self._report(PresenceBatch(), is_leaving=True)

    async def _keep_lease(self) -> None:
        while True:
            self._lost.clear()
            now_s = self._clock_s()
            if await self._report(PresenceBatch(), begins_lease=not self._begun.is_set()):
                self._begun.set()
                self._leased_until_s = now_s + 3 * RENEW_INTERVAL_S
                await is_set_within(self._lost, RENEW_INTERVAL_S)
            else:
                await asyncio.sleep(RETRY_S)

    async def _send_batches(self) -> None:
        while True:
            await self._begun.wait()
            now_s = self._clock_s()
            batch = self._roster.next_batch(now_s) if self._roster.has_changes(now_s) else PresenceBatch()
            if not batch:
                await self._wait()
            elif not await self._report(batch):
                await asyncio.sleep(RETRY_S)
            elif len(batch) < PRESENCE_BATCH_MAX:
                await asyncio.sleep(min(len(batch) * PAUSE_PER_USER_S, PAUSE_MAX_S))

    async def _wait(self) -> None:
        """Wait for a new user, or for the next check of grace periods."""
        if await is_set_within(self._roster.changed, QUIET_INTERVAL_S):
            self._roster.changed.clear()
            await asyncio.sleep(GATHER_S)

    async def _report(self, batch: PresenceBatch, *, begins_lease: bool = False, is_leaving: bool = False) -> bool:
        """Send a batch. Return whether it arrived under a lease that this gateway still holds."""
        lease = self._lease
        command = ReportPresence(
            **self._backend.request_fields(GATEWAY),
            node_id=lease,
            came=batch.came,
            went=batch.went,
            begins_lease=begins_lease,
            is_leaving=is_leaving,
        )
        try:
            answer: PresenceReported = await self._backend.report_presence(command)
        except (Unavailable, Refusal) as error:
            log.warning("presence_report_failed", reason=str(error))
            return False
        if lease != self._lease:  # lost meanwhile
            return False
        if not answer.lease_is_known:
            self._begin_another(lease)
            return False
        self._roster.confirm(batch)
        return True

    def _begin_another(self, lost: str) -> None:
        """Replace the lost lease by one with a new name, which no late batch or sweep of the lost one affects."""
        log.warning("presence_lease_lost", lease=lost)
        self._leases_lost += 1
        self._lease = f"{self._node_id}.{self._leases_lost}"
        self._begun.clear()
        self._lost.set()
        self._roster.lease_lost()
