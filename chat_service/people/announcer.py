"""Announces changes of users' presence to their rooms.

One replica at a time announces, under a lease. Reports and the sweep write each change as `unannounced`, and do not
wait for the announcer. It takes unannounced users in batches: it notes in its lease that their announcement begins,
updates the online flag of their memberships, notifies their rooms and direct partners, and clears `unannounced`.

A killed announcer loses no change: users stay unannounced until all of this is done, and the next announcer announces
the current state of the users in that note, changed or not. A user who comes back before their departure was announced
is not announced at all.

After a batch that was not full the announcer pauses, longer after a larger batch, so that changes gather: however few
users it has, a batch costs one write for the report and about six database calls for the announcement.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from chat_service import metrics
from chat_service.people.announcement_store import AnnouncementStore
from chat_service.people.announcements import BatchSize, RoomAudience, announce, count_delivery
from chat_service.people.count_schedule import CountSchedule
from chat_service.people.presence_record import PresenceRecord
from chat_service.rooms.room import Membership
from shared.bus.confirms import confirmed
from shared.bus.publisher import Publisher
from shared.errors import Unavailable
from shared.mongo import DOCUMENTS_MAX, chunks
from shared.telemetry import logs
from shared.waiting import is_set_within

log = logs.get(__name__)

LEASE_MS = 5_000
POLL_INTERVAL_S = 2.0
RETRY_S = 1.0
PAUSE_PER_USER_S = 0.01
PAUSE_MAX_S = 3.0
BREATH_S = 0.005  # between two pieces of a batch: other work of this process and of the database goes on
MEMBERSHIPS_MAX = 2_000
COUNTS_AT_ONCE = 20
ROOMS_CACHED_MAX = 20_000
ROOMS_CACHED_FOR_MS = 30_000


class PresenceAnnouncer:
    """The announcer of this replica. `wake` it after a change. Bound: two batches of users, 20,000 cached rooms."""

    def __init__(
        self, store: AnnouncementStore, bus: Publisher, node_id: str, clock_ms: Callable[[], int], room_max: int
    ) -> None:
        self._store = store
        self._bus = bus
        self._node_id = node_id
        self._clock_ms = clock_ms
        self._room_max = room_max
        self._woken = asyncio.Event()
        self._leased_until_ms = 0
        self._in_doubt: set[str] = set()  # users whose announcement has begun: rooms may have received it
        self._size = BatchSize()
        self._schedule = CountSchedule()
        self._knows_counts = True  # False after a failure: a count may have been sent, or is still pending
        self._rooms: dict[str, RoomAudience] = {}
        self._rooms_since_ms = 0

    def wake(self) -> None:
        """Announce soon: users have changed."""
        self._woken.set()

    async def run(self) -> None:
        """Announce until cancelled. Without a `wake`, check every 2 s what another replica has left unannounced."""
        while True:
            try:
                users = await self.announce() if await self._is_needed() else 0
            except Unavailable as error:
                log.warning("presence_announcement_delayed", reason=str(error))
                self._size.halve()
                self.wake()
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(min(users * PAUSE_PER_USER_S, PAUSE_MAX_S))

    async def _is_needed(self) -> bool:
        if await is_set_within(self._woken, POLL_INTERVAL_S):
            self._woken.clear()
            return True
        now_ms = self._clock_ms()
        if self._schedule.is_due(now_ms):
            return True
        patience_ms = 0 if now_ms < self._leased_until_ms else LEASE_MS  # another announcer may be about to do it
        return await self._store.has_pending(now_ms - patience_ms)

    async def announce(self) -> int:
        """Announce full batches of users, then a last one, and the due counts. Return the size of the last batch.

        Do nothing while another replica has the lease. Raises Unavailable; then the next call reads the pending
        counts again.
        """
        try:
            while await self._hold_lease():
                users_max = self._size.users
                users = await self._announce_batch(users_max)
                await self._send_due_counts()
                if users < users_max:
                    self._in_doubt.clear()  # no unannounced user is left; users still in doubt were finished before
                    return users
                await asyncio.sleep(BREATH_S)
        except Unavailable:
            self._leased_until_ms, self._knows_counts = 0, False
            raise
        return 0

    async def _hold_lease(self) -> bool:
        now_ms = self._clock_ms()
        if self._leased_until_ms - now_ms > LEASE_MS // 2:
            return True
        held = await self._store.hold_lease(self._node_id, now_ms, now_ms + LEASE_MS)
        if held is None:
            return False
        if held.is_taken_over:
            self._in_doubt = set(held.in_doubt)
        if held.is_taken_over or not self._knows_counts:
            self._schedule = CountSchedule(now_ms)
            self._schedule.note_pending(await self._store.pending_counts())
            self._knows_counts = True
        self._leased_until_ms = now_ms + LEASE_MS
        return True

    # Users ----------------------------------------------------------------------------------------------------------

    async def _announce_batch(self, users_max: int) -> int:
        """Announce at most `users_max` users, fewer if they have many memberships. Return the number that waited."""
        records = await self._store.unannounced(users_max)
        changed = {one.user_id: one for one in records if one.is_changed or one.user_id in self._in_doubt}
        unchanged = [record for record in records if record.user_id not in changed]
        batch, memberships = await self._first_of(changed) if changed else (changed, [])
        await self._begin(batch)
        large_rooms = await self._announce_memberships(memberships, batch)
        if len(batch) == 1 and len(memberships) == MEMBERSHIPS_MAX:
            async for more in self._rest_of(memberships[-1]):
                large_rooms |= await self._announce_memberships(more, batch)
        await self._count_soon(large_rooms)
        await self._store.finish([*unchanged, *batch.values()], self._clock_ms())
        self._in_doubt.difference_update(batch)
        self._size.note_done(len(memberships), MEMBERSHIPS_MAX)
        for record in batch.values():
            metrics.PRESENCE_CHANGES.labels("online" if record.is_online else "offline").inc()
        return len(records) if len(batch) == len(changed) else users_max

    async def _begin(self, user_ids: Collection[str]) -> None:
        """Note that the announcement of these users begins. Raises Unavailable."""
        self._in_doubt.update(user_ids)
        if user_ids and not await self._store.begin(self._node_id, self._in_doubt):
            raise Unavailable("another replica announces")

    async def _first_of(self, changed: dict[str, PresenceRecord]) -> tuple[dict[str, PresenceRecord], list[Membership]]:
        """Return the first users with all their memberships: at most 2,000 together, but at least one user.

        If one user alone has more, return their first 2,000.
        """
        while True:
            batch = dict(list(changed.items())[: self._size.users])
            limit = MEMBERSHIPS_MAX + (len(batch) > 1)
            memberships = await self._store.memberships(batch, limit)
            if len(batch) == 1 or len(memberships) < limit:
                return batch, memberships
            self._size.shrink(len(batch), len({membership.user_id for membership in memberships}))

    async def _rest_of(self, last: Membership) -> AsyncIterator[list[Membership]]:
        """Yield the memberships of one user after `last`."""
        while more := await self._store.memberships([last.user_id], MEMBERSHIPS_MAX, after=last):
            yield more
            last = more[-1]

    async def _announce_memberships(
        self, memberships: Sequence[Membership], records: dict[str, PresenceRecord]
    ) -> set[str]:
        """Set the online flag of memberships and notify their rooms, 500 at a time. Return the large rooms.

        Raises Unavailable if this replica has lost the lease: after a stall, it would announce an outdated state.
        """
        large_rooms: set[str] = set()
        rooms = await self._audiences({membership.room_id for membership in memberships})
        for some in chunks(memberships, DOCUMENTS_MAX):
            if not await self._hold_lease():
                raise Unavailable("another replica announces")
            announcement = announce(some, records, rooms, self._room_max)
            await self._store.set_flags(announcement.flags[True], announcement.flags[False])
            await confirmed([self._bus.deliver(delivery) for delivery in announcement.deliveries])
            large_rooms |= announcement.large_rooms
            await asyncio.sleep(BREATH_S)
        return large_rooms

    async def _audiences(self, room_ids: Collection[str]) -> dict[str, RoomAudience]:
        now_ms = self._clock_ms()
        if now_ms - self._rooms_since_ms > ROOMS_CACHED_FOR_MS or len(self._rooms) > ROOMS_CACHED_MAX:
            self._rooms.clear()
            self._rooms_since_ms = now_ms
        unknown = [room_id for room_id in room_ids if room_id not in self._rooms]
        self._rooms |= await self._store.audiences(unknown)
        return self._rooms

    # Counts of large rooms ------------------------------------------------------------------------------------------

    async def _count_soon(self, room_ids: Collection[str]) -> None:
        """Send these rooms their counts, now or within 5 s; a note in the database outlives this process."""
        counts = self._schedule.note_changes(room_ids, self._clock_ms())
        await self._store.add_pending_counts(counts.due_ms)
        self._schedule.note_pending(counts.due_ms)
        for some in chunks(counts.now, COUNTS_AT_ONCE):
            await self._send_counts(some)

    async def _send_due_counts(self) -> None:
        """Send the counts that are due, at most 20."""
        if due := self._schedule.due(self._clock_ms(), COUNTS_AT_ONCE):
            await self._send_counts(due)
            await self._store.counts_sent(due)

    async def _send_counts(self, room_ids: Sequence[str]) -> None:
        self._schedule.note_sending(room_ids, self._clock_ms())
        counts = await self._store.active_now(room_ids)
        await confirmed([self._bus.deliver(count_delivery(room_id, counts.get(room_id, 0))) for room_id in room_ids])
