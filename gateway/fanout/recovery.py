"""Recovery after lost lines, and checks whether subscribers still have access.

Lines can be lost on the way to the broker, because owners publish without confirms, and between broker and gateway,
when the connection breaks or the gateway's queue overflows. A channel with an order shows the loss as a gap in its
positions. UNORDERED items have no positions: the loss of an event for a community, a room or everyone is not detected
(the other UNORDERED items are listed at `DeliveryKind`).

After every reconnect, every channel is checked. For a room, the gateway queries the partition for each subscriber,
which also reveals memberships that ended meanwhile. Until the answer arrives, the hub buffers for the subscriber: it
receives nothing without access, and no item of the room's log is lost. The queries begin once the revocations are
loaded, so no banned user is shown anything of these rooms; see `gateway.auth.revocations`.

    connected ── on_disconnected ──> suspend every room's listeners, withhold direct messages of rooms new to a socket;
        ^                               │                           cancel the recheck in flight
        └── every answer applied ── on_connected: fetch prices, recent direct messages, room heads, inbox heads
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial

from gateway import metrics
from gateway.backend import Backend
from gateway.background import Spawn
from gateway.fanout.gap_filler import GapFiller
from gateway.fanout.hub import Hub
from gateway.fanout.membership import ChannelMembership
from gateway.fanout.price_snapshot import fetch_prices
from gateway.fanout.retries import Retries
from shared.bus.delivery import ChannelKind, ChannelName, EndReason, inbox_channel, room_channel
from shared.commands.command import GATEWAY, Caller
from shared.errors import ErrorCode, Refusal
from shared.telemetry import logs
from shared.times import now_ms

log = logs.get(__name__)

# How long a broken connection may go unnoticed: during its set-up, up to CONNECT_TIMEOUT_S of `kept_connection` (30 s).
# After that, a missing echo reveals it after 2.5 s.
LOST_FOR_MS = 30_000


class Recovery:
    """Repairs the hub of one gateway process. `on_disconnected` and `on_connected` are hooks of `Bus`."""

    def __init__(
        self,
        hub: Hub,
        backend: Backend,
        membership: ChannelMembership,
        gaps: GapFiller,
        retries: Retries,
        spawn: Spawn,
        revocations_loaded: Callable[[], Awaitable[None]],
    ) -> None:
        self._hub = hub
        self._backend = backend
        self._membership = membership
        self._gaps = gaps
        self._retries = retries
        self._spawn = spawn
        self._revocations_loaded = revocations_loaded
        self._loop = asyncio.get_running_loop()
        self._was_connected = False
        self._alive_at_ms = now_ms()
        self._directs_lost_since_ms: int | None = None  # None unless direct messages may be missing
        self._is_direct_missed = False
        self._losses = 0
        self._checks = itertools.count(1)
        self._rechecking: asyncio.Task[None] | None = None

    def note_alive(self) -> None:
        """Record that the process runs. After a gap between calls it was frozen and may have lost lines."""
        self._alive_at_ms = now_ms()

    def recheck(self, room_id: str) -> None:
        """Query again whether each subscriber of a room still has access.

        Until its answer arrives, a subscriber receives nothing. Then it continues at its position, or is unsubscribed.
        """
        self._spawn(self._recheck_room(room_id, self._suspend(room_id)))

    def directs_missed(self) -> None:
        """Fetch recent direct messages, because one may be missing in a room new to a socket, where no gap shows."""
        self._is_direct_missed = True
        if self._directs_lost_since_ms is None:  # otherwise a recheck is in progress, or follows the next connection
            self._withhold_directs()
            self._spawn(self._recheck_directs())

    # The connection -------------------------------------------------------------------------------------------------

    def on_disconnected(self) -> None:
        """Suspend every room's listeners, and cancel rechecks in flight: their answers predate this loss."""
        self._losses += 1
        if self._rechecking is not None:
            self._rechecking.cancel()
        if self._was_connected:
            self._suspend_all()

    async def on_connected(self) -> None:
        """Check every channel: lines may have been lost, unless this is the first connection."""
        if self._was_connected:
            self._rechecking = self._spawn(self._recheck_all(self._suspend_all()))
        self._was_connected = True

    def _suspend_all(self) -> dict[str, int]:
        """Suspend the listeners of all rooms, and withhold direct messages. Return each room's check number."""
        self._withhold_directs()
        return {room_id: self._suspend(room_id) for room_id in self._keys(ChannelKind.ROOM)}

    def _withhold_directs(self) -> None:
        self._hub.directs.withhold()
        if self._directs_lost_since_ms is None:
            self._directs_lost_since_ms = self._alive_at_ms - LOST_FOR_MS

    def _suspend(self, room_id: str) -> int:
        check = next(self._checks)
        self._hub.suspend(room_channel(room_id), check)
        return check

    def _keys(self, kind: ChannelKind) -> list[str]:
        """Return the keys of all channels of a kind."""
        names = map(ChannelName.parse, self._hub.channels)
        return [name.key for name in names if name.kind is kind]

    async def _recheck_all(self, checks: dict[str, int]) -> None:
        self._hub.forget_prices()
        await self._revocations_loaded()
        log.info("rechecking_channels", channels=len(self._hub.channels))
        symbols, user_ids = self._keys(ChannelKind.MARKET), self._keys(ChannelKind.INBOX)
        async with asyncio.TaskGroup() as tasks:
            if symbols:
                tasks.create_task(self._retries.run(partial(fetch_prices, self._backend, self._hub, symbols)))
            tasks.create_task(self._recheck_directs())
            for room_id, check in checks.items():
                tasks.create_task(self._recheck_room(room_id, check))
            for user_id in user_ids:
                tasks.create_task(self._recheck_inbox(user_id))

    # Rooms and inboxes ----------------------------------------------------------------------------------------------

    async def _recheck_room(self, room_id: str, check: int) -> None:
        users = {sink.user_id for sink in self._hub.sinks_of(room_channel(room_id))}
        await asyncio.gather(*(self._recheck_user(room_id, user_id, check) for user_id in users))

    async def _recheck_user(self, room_id: str, user_id: str, check: int) -> None:
        name = room_channel(room_id)

        def listens() -> bool:
            return any(sink.user_id == user_id for sink in self._hub.sinks_of(name))

        if not await self._retries.run(partial(self._ask_room, room_id, user_id, check), listens):
            self._membership.expel(room_id, user_id)

    async def _ask_room(self, room_id: str, user_id: str, check: int) -> None:
        name = room_channel(room_id)
        try:
            head = await self._backend.subscribe_room(Caller(user_id=user_id), room_id)
        except Refusal as refusal:
            if refusal.code is not ErrorCode.NOT_FOUND:
                raise
            if not await self._gaps.close_if_deleted(room_id):
                self._membership.expel(room_id, user_id, EndReason.REMOVED)
            return
        channel = self._hub.channels.get(name)
        if channel is None:
            return
        for sink in list(channel.sinks()):
            if sink.user_id == user_id:
                channel.pass_check(sink, check, head.rev, self._loop.time())
        self._membership.finish_evictions()
        channel.stream.note_head_and_gap(head.rev)
        self._gaps.fill_gaps()

    async def _recheck_inbox(self, user_id: str) -> None:
        name = inbox_channel(user_id)
        await self._retries.run(partial(self._ask_inbox, user_id), lambda: name in self._hub.channels)

    async def _ask_inbox(self, user_id: str) -> None:
        head = await self._backend.open_inbox(Caller(user_id=user_id), None)
        self._hub.note_head_and_gap(inbox_channel(user_id), head.seq)
        self._gaps.fill_gaps()

    # Direct messages ------------------------------------------------------------------------------------------------

    async def _recheck_directs(self) -> None:
        """Fetch recent direct messages: no position reveals a loss in a room that a socket has not joined yet."""
        losses = self._losses
        self._is_direct_missed = is_known = True
        while self._is_direct_missed:
            self._is_direct_missed = False
            is_known = await self._retries.run(self._ask_directs)
            if losses != self._losses:
                return  # another loss has started a new recheck
        if not is_known:
            metrics.GAPS_LOST.inc()
        self._directs_lost_since_ms = None
        self._hub.directs.release(self._loop.time())
        self._gaps.fill_gaps()

    async def _ask_directs(self) -> None:
        users = tuple(self._keys(ChannelKind.USER))
        if not users or self._directs_lost_since_ms is None:
            return
        losses = self._losses
        answer = await self._backend.recent_direct_messages(GATEWAY, users, self._directs_lost_since_ms)
        if losses != self._losses:
            return
        for room in answer.rooms:
            for user_id in room.user_ids:
                self._hub.directs.catch_up(user_id, room.room_id, room.positions, self._loop.time())
        if not answer.is_whole:
            log.error("recent_directs_truncated", since_ms=self._directs_lost_since_ms)
            metrics.GAPS_LOST.inc()
