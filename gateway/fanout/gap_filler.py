"""Gap filling: fetches from history the lossless items that did not arrive."""

import asyncio
from functools import partial

from gateway import metrics
from gateway.backend import Backend
from gateway.background import Spawn
from gateway.fanout.hub import Hub
from gateway.fanout.resequencer import Gap
from gateway.fanout.retries import Retries
from shared.bus.delivery import ChannelKind, ChannelName
from shared.commands.command import GATEWAY, Caller, ReplayedFrames
from shared.telemetry import logs

log = logs.get(__name__)


class GapFiller:
    """Fills the gaps that the hub notes, one request per channel at a time."""

    def __init__(self, hub: Hub, backend: Backend, retries: Retries, spawn: Spawn) -> None:
        self._hub = hub
        self._backend = backend
        self._retries = retries
        self._spawn = spawn
        self._filling: set[str] = set()
        self._loop = asyncio.get_running_loop()

    def fill_gaps(self) -> None:
        """Begin to fetch what is missing."""
        for name in list(self._hub.gaps):
            self._hub.gaps.discard(name)
            channel = self._hub.channels.get(name)
            gap = None if channel is None else channel.stream.missing()
            if gap is not None and name not in self._filling:
                self._filling.add(name)
                metrics.GAPS.inc()
                self._spawn(self._fill(gap))

    async def _fill(self, gap: Gap) -> None:
        log.info("filling_gap", after=gap.after, through=gap.through)
        try:
            if not await self._retries.run(partial(self._fetch, gap), lambda: gap.channel in self._hub.channels):
                self._note_lost(gap)
                self._hub.fill(gap, gap.through + 1, (), self._loop.time())
        finally:
            self._filling.discard(gap.channel)
        self._hub.note_head(gap.channel, 0)  # a gap noted meanwhile was passed over, and is noted again
        self.fill_gaps()

    async def _fetch(self, gap: Gap) -> None:
        replay = await self._replay(gap)
        reached = gap._replace(through=min(gap.through, max(gap.after, replay.first + len(replay.frames) - 1)))
        if not replay.frames:
            self._note_lost(gap)
            reached = gap
        self._hub.fill(reached, replay.first, [bytes(item) for item in replay.frames], self._loop.time())

    async def _replay(self, gap: Gap) -> ReplayedFrames:
        match ChannelName.parse(gap.channel):
            case ChannelName(ChannelKind.ROOM, room_id):
                return await self._backend.replay_messages(GATEWAY, room_id, gap.after, gap.through)
            case ChannelName(ChannelKind.INBOX, user_id):
                return await self._backend.replay_inbox(Caller(user_id=user_id), gap.after, gap.through)
            case _:  # no other channel has a history
                return ReplayedFrames(first=gap.through + 1, frames=())

    def _note_lost(self, gap: Gap) -> None:
        log.error("gap_not_filled", after=gap.after, through=gap.through)
        metrics.GAPS_LOST.inc()
