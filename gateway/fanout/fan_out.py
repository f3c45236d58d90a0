"""The fan-out of one gateway process: composition of its parts, and their periodic work."""

import asyncio

from gateway.auth.revocations import RevocationListSync
from gateway.backend import Backend
from gateway.background import Spawn
from gateway.fanout.activity_feed import ActivityFeed
from gateway.fanout.bindings import ShardBindings
from gateway.fanout.controls import OnControl
from gateway.fanout.flusher import Flusher
from gateway.fanout.gap_filler import GapFiller
from gateway.fanout.hub import Hub
from gateway.fanout.membership import ChannelMembership
from gateway.fanout.recovery import Recovery
from gateway.fanout.relay import OnAnswer, Relay
from gateway.fanout.retries import Retries
from gateway.fanout.stall import StallGuard
from shared.bus.bus import Bus
from shared.bus.delivery import CONTROL_CHANNEL
from shared.bus.private_queue import PrivateQueue
from shared.waiting import until_next

SWEEP_INTERVAL_S = 0.5
TICK_INTERVAL_S = 0.5


class FanOut:
    """Delivers the lines of this gateway's queue. `on_body` receives each AMQP message.

    `hub`, `membership`, `recovery` and `activity` serve the sockets.
    """

    def __init__(
        self,
        bus: Bus,
        backend: Backend,
        queue: PrivateQueue,
        spawn: Spawn,
        on_control: OnControl,
        on_answer: OnAnswer,
        revocations: RevocationListSync,
    ) -> None:
        self._bus = bus
        self._flusher = Flusher()
        self._bindings = ShardBindings(bus, queue)
        self._retries = Retries()
        self._loop = asyncio.get_running_loop()
        self.hub = Hub(self._flusher.schedule)
        self.membership = ChannelMembership(self.hub, self._bindings)
        self._gaps = GapFiller(
            self.hub,
            backend,
            self._retries,
            spawn,
            on_control,
            self.membership.finish_evictions,
            revocations.lines_lost,
        )
        self.recovery = Recovery(
            self.hub, backend, self.membership, self._gaps, self._retries, spawn, revocations.loaded
        )
        self._stall = StallGuard(lambda: bus.drop_connection("the process stalled"), self._loop.time())
        self.activity = ActivityFeed(backend, self._bindings, self._retries, spawn)
        self._relay = Relay(
            self.hub,
            self._gaps,
            self._stall,
            on_control,
            on_answer,
            self.recovery.directs_missed,
            self.membership.finish_evictions,
            self.activity,
        )
        self.on_body = self._relay.on_body
        self.readiness = self._bindings.readiness
        bus.on_disconnected.append(self._stall.disconnected)
        bus.on_disconnected.append(self.recovery.on_disconnected)  # before a line of the next connection arrives
        bus.on_disconnected.append(self.activity.on_disconnected)
        bus.on_connected.append(self._on_connected)

    def forget_items(self) -> None:
        """Forget delivered items and gaps, because the database was restored; the sockets have left already."""
        self._gaps.forget()
        self.hub.forget_items()

    async def run(self) -> None:
        """Run the periodic work until cancelled."""
        await self._retries.run(lambda: self._bindings.require(CONTROL_CHANNEL))
        while True:
            await until_next(SWEEP_INTERVAL_S)
            self._relay.measure()
            self._relay.end_typing()
            self._flusher.measure()
            self._sweep()
            await self._bindings.unbind_idle()

    async def watch_for_stalls(self) -> None:
        """Tick the stall guard, until cancelled. Never waits for the broker."""
        while True:
            await until_next(TICK_INTERVAL_S)
            self._stall.tick(self._loop.time())
            self.recovery.note_alive()

    async def _on_connected(self) -> None:
        self._stall.connected(self._loop.time())
        await self.recovery.on_connected()
        self.activity.on_connected()

    def _sweep(self) -> None:
        """Apply the time limits of the hub's channels."""
        now_s = self._loop.time()
        self.hub.note_overdue(now_s)
        for sink, name in self.hub.give_up(now_s):
            self.membership.leave(sink, name)
        self._gaps.fill_gaps()
