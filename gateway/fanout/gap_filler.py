"""Gap filling: fetches from history the lossless items that did not arrive."""

import asyncio
from collections.abc import Callable
from functools import partial

from gateway import metrics
from gateway.backend import Backend
from gateway.background import Spawn
from gateway.fanout.controls import OnControl, guarded
from gateway.fanout.hub import Hub
from gateway.fanout.resequencer import Gap
from gateway.fanout.retries import Retries
from shared.bus.delivery import ChannelKind, ChannelName, ControlKind, Delivery, DeliveryKind, room_channel
from shared.commands.command import GATEWAY, Caller
from shared.errors import Refusal, Unavailable
from shared.telemetry import logs

log = logs.get(__name__)


class GapFiller:
    """Fills the gaps that the hub notes, one request per channel at a time.

    `on_control` receives the controls of the entries that fill a gap, before the entries; `on_evicted` is called
    afterwards.
    """

    def __init__(
        self,
        hub: Hub,
        backend: Backend,
        retries: Retries,
        spawn: Spawn,
        on_control: OnControl,
        on_evicted: Callable[[], None],
        on_lines_lost: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._backend = backend
        self._retries = retries
        self._spawn = spawn
        self._on_control = guarded(on_control)
        self._on_evicted = on_evicted
        self._on_lines_lost = on_lines_lost
        self._filling: set[str] = set()
        self._resets = 0
        self._loop = asyncio.get_running_loop()

    def fill_gaps(self) -> None:
        """Start to fetch the missing items."""
        for name in list(self._hub.gaps):
            self._hub.gaps.discard(name)
            channel = self._hub.channels.get(name)
            gap = None if channel is None else channel.stream.missing()
            if gap is not None and name not in self._filling:
                self._filling.add(name)
                metrics.GAPS.inc()
                self._on_lines_lost()
                self._spawn(self._fill(gap))

    def forget(self) -> None:
        """Give up all requests: the earlier positions no longer hold."""
        self._resets += 1
        self._filling.clear()

    async def _fill(self, gap: Gap) -> None:
        log.info("filling_gap", after=gap.after, through=gap.through)
        resets = self._resets

        def is_wanted() -> bool:
            return self._resets == resets and gap.channel in self._hub.channels

        try:
            if not await self._retries.run(partial(self._fetch, gap), is_wanted) and is_wanted():
                self._note_lost(gap)
                self._hub.fill(gap, gap.through + 1, (), self._loop.time())
        finally:
            if self._resets == resets:
                self._filling.discard(gap.channel)
        self._hub.note_gap(gap.channel)  # `fill_gaps` skipped gaps noted during this fetch
        self.fill_gaps()

    async def _fetch(self, gap: Gap) -> None:
        match ChannelName.parse(gap.channel):
            case ChannelName(ChannelKind.ROOM, room_id):
                await self._fetch_entries(gap, room_id)
            case ChannelName(ChannelKind.INBOX, user_id):
                replay = await self._backend.replay_inbox(Caller(user_id=user_id), gap.after, gap.through)
                self._fill_frames(gap, replay.first, [[bytes(item)] for item in replay.frames])
            case _:  # no other channel has a history
                self._fill_frames(gap, gap.through + 1, [])

    async def _fetch_entries(self, gap: Gap, room_id: str) -> None:
        """Close a gap in a room's log. Raises Unavailable while a majority does not have the first missing entry.

        Every rev seen by a gateway is committed, so the gap is never given up: only the entries, or the deletion of the
        room, close it. A refusal says nothing about the room, so it is retried as well.
        """
        try:
            replay = await self._backend.replay_entries(GATEWAY, room_id, gap.after, gap.through)
        except Refusal as refusal:
            raise Unavailable(f"the entries were refused: {refusal}") from refusal
        if replay.is_deleted:
            self._close(gap.channel)
            return
        if not replay.entries:
            raise Unavailable("no majority has the entry yet")
        for entry in replay.entries:
            for kind, data in entry.controls:
                self._on_control(Delivery(gap.channel, DeliveryKind.CONTROL, entry.rev, kind, data.encode()))
        reached = gap._replace(through=replay.entries[-1].rev)
        self._hub.fill(reached, gap.after + 1, [entry.frames for entry in replay.entries], self._loop.time())
        self._on_evicted()

    async def close_if_deleted(self, room_id: str) -> bool:
        """Close a room that its log shows to be deleted, and return whether it is. Raises Refusal and Unavailable."""
        is_deleted = (await self._backend.replay_entries(GATEWAY, room_id, 0, 0)).is_deleted
        if is_deleted:
            self._close(room_channel(room_id))
        return is_deleted

    def _close(self, channel: str) -> None:
        self._on_control(Delivery(channel, DeliveryKind.CONTROL, 0, ControlKind.ROOM_DELETED, b"{}"))

    def _fill_frames(self, gap: Gap, first: int, frames: list[list[bytes]]) -> None:
        reached = gap._replace(through=min(gap.through, max(gap.after, first + len(frames) - 1)))
        if not frames:
            self._note_lost(gap)
            reached = gap
        self._hub.fill(reached, first, frames, self._loop.time())

    def _note_lost(self, gap: Gap) -> None:
        log.error("gap_not_filled", after=gap.after, through=gap.through)
        metrics.GAPS_LOST.inc()
