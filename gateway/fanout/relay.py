"""From the broker to the hub: which shards to listen to, gaps to fill, and what to do when lines may have been lost.

Lines can be lost between broker and gateway when the connection breaks or the gateway's queue overflows. Lossless
channels show it as a gap in their seq. Then, and after every reconnect, every channel is checked again (`recheck`):
rooms by asking the partition for each subscriber, which also notices memberships that ended meanwhile. Until it has
answered, what comes for that subscriber waits in the hub: nothing is shown unchecked, and nothing is lost.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from gateway import metrics
from gateway.backend import Backend
from gateway.fanout.channel import Sink, Written
from gateway.fanout.hub import Hub
from gateway.fanout.resequencer import Gap
from gateway.fanout.typing_expiry import ShownTyping
from gateway.fanout.wire import message_ids, sent_at_ms
from shared.bus.bus import Bus
from shared.bus.delivery import CONTROL_CHANNEL, Delivery, DeliveryClass, market_channel
from shared.bus.topology import DELIVERIES, gateway_queue, shard_key, shard_of
from shared.commands.command import GATEWAY, Caller, ReplayedFrames
from shared.errors import ErrorCode, Malformed, Refusal, Unavailable
from shared.protocol.server_frames import frame
from shared.telemetry import logs
from shared.times import now_ms

log = logs.get(__name__)

UNBIND_LINGER_S = 30.0
SWEEP_INTERVAL_S = 0.5
RECHECKS_AT_ONCE = 200
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
REFUSALS_MAX = 5  # in a row; then it is the answer
LOST_FOR_MS = 30_000  # how long before it is noticed that a connection is broken it may have brought nothing

Control = Callable[[Delivery], None]


class Relay:
    """Feeds the hub of one gateway process. `on_control` is called with each CONTROL delivery."""

    def __init__(self, hub: Hub, bus: Bus, backend: Backend, node_id: str, on_control: Control) -> None:
        self._hub = hub
        self._bus = bus
        self._backend = backend
        self._queue = gateway_queue(node_id)
        self._on_control = on_control
        self._wanted: dict[int, set[str]] = {}  # channels by shard
        self._bound: dict[int, asyncio.Future[None]] = {}
        self._idle_since_s: dict[int, float] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._connected_before = False
        self._swept_ms = now_ms()
        self._directs_lost_since_ms: int | None = None
        self._losses = 0
        self._filling: set[str] = set()
        self._taken = dict.fromkeys(DeliveryClass, 0)  # lines since they were last brought to the metrics
        self._bodies = 0
        self._tasks: asyncio.TaskGroup | None = None
        self._checks = itertools.count(1)
        self._rechecking: asyncio.Task[None] | None = None
        self._slots = asyncio.Semaphore(RECHECKS_AT_ONCE)
        self._typing = ShownTyping()

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._bus.on_disconnected.append(self._on_disconnected)  # before the next connection brings a line
            self._bus.on_connected.append(self._on_connected)
            await self._bus.listen(self._queue, self._on_body)
            await self._retry(lambda: self.want(CONTROL_CHANNEL))
            while True:
                await asyncio.sleep(SWEEP_INTERVAL_S)
                self._swept_ms = now_ms()
                self._measure()
                self._hub.overdue(self._loop.time())
                for sink, name in self._hub.given_up(self._loop.time()):
                    self.leave(sink, name)
                self._end_typing()
                self._fill_gaps()
                await self._unbind_idle()

    async def readiness(self) -> str | None:
        """None once this gateway hears what all must hear, such as who may no longer listen; else the reason."""
        binding = self._bound.get(shard_of(CONTROL_CHANNEL))
        is_bound = binding is not None and binding.done() and binding.exception() is None
        return None if is_bound else "deliveries: the queue of this gateway is not bound yet"

    # Interest -------------------------------------------------------------------------------------------------------

    async def want(self, channel: str) -> None:
        """Return once the channel's shard reaches this gateway. Raises Unavailable; then nothing is wanted."""
        shard = shard_of(channel)
        self._wanted.setdefault(shard, set()).add(channel)
        self._idle_since_s.pop(shard, None)
        binding = self._bound.get(shard)
        if binding is None:
            binding = self._bound[shard] = self._loop.create_future()
            await self._bind(shard, binding)
        elif not binding.done():
            await asyncio.shield(binding)
        if binding.exception() is not None:
            self.release(channel)
            raise Unavailable("the broker is not connected")

    async def _bind(self, shard: int, binding: "asyncio.Future[None]") -> None:
        try:
            await self._bus.bind(self._queue.name, DELIVERIES, shard_key(shard))
        except BaseException as error:
            del self._bound[shard]
            binding.set_exception(Unavailable("the broker is not connected"))
            if not isinstance(error, Unavailable):
                raise
        else:
            binding.set_result(None)
            metrics.SHARDS_BOUND.inc()

    def release(self, channel: str) -> None:
        """Nobody here listens to the channel any more. Its shard is left when none of its channels is wanted for 30 s:
        bindings come and go with shards, not with clients."""
        shard = shard_of(channel)
        wanted = self._wanted.get(shard)
        if wanted is None:
            return
        wanted.discard(channel)
        if not wanted:
            del self._wanted[shard]
            self._idle_since_s[shard] = self._loop.time()

    async def _unbind_idle(self) -> None:
        now_s = self._loop.time()
        for shard, since_s in list(self._idle_since_s.items()):
            if now_s - since_s < UNBIND_LINGER_S or shard in self._wanted:
                continue
            del self._idle_since_s[shard]
            if self._bound.pop(shard, None) is not None:
                metrics.SHARDS_BOUND.dec()
                with suppress(Unavailable):
                    await self._bus.unbind(self._queue.name, DELIVERIES, shard_key(shard))

    # Deliveries -----------------------------------------------------------------------------------------------------

    def _on_body(self, body: bytes) -> None:
        """HOT: one call an AMQP message, one pass over its lines."""
        now_s = self._loop.time()
        self._bodies += 1
        if logs.details:
            self._log_messages(body)
        for line in body.split(b"\n"):
            try:
                delivery = Delivery.from_line(line)
            except Malformed as error:
                log.error("bad_delivery_line", reason=str(error))
                continue
            self._taken[delivery.kind] += 1
            if delivery.kind is DeliveryClass.CONTROL:
                try:
                    self._on_control(delivery)
                except Exception:  # the wall around one delivery: the rest of the body is not lost with it
                    log.exception("control_failed", key=delivery.key)
            else:
                if delivery.kind is DeliveryClass.TRANSIENT and delivery.channel in self._hub.channels:
                    self._typing.note(delivery, now_s)
                self._hub.deliver(delivery, now_s)
        self.schedule()
        if self._hub.gaps:
            self._fill_gaps()

    def _log_messages(self, body: bytes) -> None:
        """What is delivered here, by the message's id, which is that of the command that brought it."""
        for message_id in message_ids(body):
            log.debug("message_arrived", request_id=message_id)

    def _end_typing(self) -> None:
        now_s = self._loop.time()
        for end in self._typing.overdue(now_s):
            self._hub.deliver(end, now_s)
        self.schedule()

    def schedule(self) -> None:
        """See to it that the hub is flushed when it is due."""
        due_s = self._hub.next_due_s
        if due_s is None or (self._timer is not None and self._timer_at_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = due_s
        self._timer = self._loop.call_at(due_s, self._flush)

    def _flush(self) -> None:
        self._timer = None
        started_s = time.perf_counter()
        self._hub.flush(self._loop.time())
        self._loop.call_soon(self._flushed, started_s)
        self.schedule()

    def _flushed(self, started_s: float) -> None:
        """One loop turn later: uvloop hands what was written to the kernel at the end of a turn."""
        self._hub.pace(time.perf_counter() - started_s)
        if (sample := self._hub.written.sample) is not None:
            self._hub.written.sample = None
            if (sent_ms := sent_at_ms(sample)) is not None:
                metrics.DELIVERY_SECONDS.observe(max(now_ms() - sent_ms, 0) / 1000)

    def _measure(self) -> None:
        """Bring to the metrics what was counted in plain integers."""
        for kind, lines in self._taken.items():
            metrics.DELIVERIES_IN.labels(kind.name.lower()).inc(lines)
        metrics.BODIES_IN.inc(self._bodies)
        written, self._hub.written = self._hub.written, Written(self._hub.written.sample)
        metrics.WRITES.inc(written.writes)
        metrics.FRAMES_OUT.labels("fanout").inc(written.frames)
        metrics.BYTES_OUT.labels("fanout").inc(written.size_bytes)
        metrics.CHANNELS.set(len(self._hub.channels))
        self._taken, self._bodies = dict.fromkeys(DeliveryClass, 0), 0

    # Losses ---------------------------------------------------------------------------------------------------------

    def _hold_all(self) -> dict[str, int]:
        """Show nothing more of any room until its subscribers have been checked, and of no direct room that is new to
        a socket until what it may have missed is known."""
        self._hub.hold_directs()
        if self._directs_lost_since_ms is None:
            self._directs_lost_since_ms = self._swept_ms - LOST_FOR_MS  # a process that was frozen has not swept
        return {name: self._hold(name) for name in self._hub.channels if name.startswith("room:")}

    def _on_disconnected(self) -> None:
        """What is being asked for was asked before this loss: its answer does not tell of all."""
        self._losses += 1
        if self._rechecking is not None:
            self._rechecking.cancel()
        if self._connected_before:
            self._hold_all()

    async def _on_connected(self) -> None:
        """The connection is there; after the first time, lines may have been lost."""
        if self._connected_before and self._tasks is not None:
            self._rechecking = self._tasks.create_task(self._recheck_all(self._hold_all()))
        self._connected_before = True

    async def _recheck_all(self, checks: dict[str, int]) -> None:
        self._hub.forget_prices()
        names = list(self._hub.channels)
        log.info("rechecking_channels", channels=len(names))
        symbols = [name.partition(":")[2] for name in names if name.startswith("market:")]
        async with asyncio.TaskGroup() as tasks:
            if symbols:
                tasks.create_task(self._retry(partial(self.snapshot, symbols)))
            tasks.create_task(self._recheck_directs())
            for name, check in checks.items():
                tasks.create_task(self._recheck_room(name, name.partition(":")[2], check))
            for name in names:
                kind, _, key = name.partition(":")
                if kind == "inbox":
                    tasks.create_task(self._recheck_inbox(name, key))

    async def _recheck_directs(self) -> None:
        """Direct messages come unasked, so that of a room that a socket does not know yet no seq shows what is lost."""
        losses = self._losses
        is_known = await self._retry(self._ask_directs)
        if losses != self._losses:
            return  # it begins anew
        if not is_known:
            metrics.GAPS_LOST.inc()
        self._directs_lost_since_ms = None
        self._hub.release_directs(self._loop.time())
        self.schedule()
        self._fill_gaps()

    async def _ask_directs(self) -> None:
        users = tuple(name.partition(":")[2] for name in self._hub.channels if name.startswith("user:"))
        if not users or self._directs_lost_since_ms is None:
            return
        losses = self._losses
        answer = await self._backend.recent_directs(GATEWAY, users, self._directs_lost_since_ms)
        if losses != self._losses:
            return
        for room in answer.rooms:
            for user_id in room.user_ids:
                self._hub.catch_up(user_id, room.room_id, room.posts, self._loop.time())
        if not answer.is_whole:
            log.error("directs_not_whole", since_ms=self._directs_lost_since_ms)
            metrics.GAPS_LOST.inc()

    def recheck(self, room: str) -> None:
        """Ask for each subscriber of a room whether it still may listen. From this call on nothing more is shown to
        it until the answer is there; then it goes on from where it stood, or is unsubscribed."""
        if self._tasks is not None:
            self._tasks.create_task(self._recheck_room(room, room.partition(":")[2], self._hold(room)))

    def _hold(self, name: str) -> int:
        check = next(self._checks)
        self._hub.hold(name, check)
        return check

    async def _recheck_room(self, name: str, room_id: str, check: int) -> None:
        users = {sink.user_id for sink in self._hub.sinks_of(name)}
        await asyncio.gather(*(self._recheck_user(name, room_id, user_id, check) for user_id in users))

    async def _recheck_user(self, name: str, room_id: str, user_id: str, check: int) -> None:
        async def ask() -> None:
            try:
                head = await self._backend.subscribe_room(Caller(user_id=user_id), room_id)
            except Refusal as refusal:
                if refusal.code is not ErrorCode.NOT_FOUND:
                    raise
                self.evict(name, user_id)
                return
            for sink in self._hub.sinks_of(name):
                if sink.user_id == user_id:
                    self._hub.checked(sink, name, check, head.seq, self._loop.time())
            self._hub.heard(name, head.seq)
            self.schedule()
            self._fill_gaps()

        def listens() -> bool:
            return any(sink.user_id == user_id for sink in self._hub.sinks_of(name))

        if not await self._retry(ask, listens):
            self.evict(name, user_id)

    async def _recheck_inbox(self, name: str, user_id: str) -> None:
        async def ask() -> None:
            head = await self._backend.open_inbox(Caller(user_id=user_id), None)
            self._hub.heard(name, head.seq)
            self._fill_gaps()

        await self._retry(ask, lambda: name in self._hub.channels)

    async def snapshot(self, symbols: list[str]) -> list[str]:
        """Bring the newest prices of symbols to their channels. Returns the unknown ones. Raises Unavailable."""
        answer = await self._backend.prices(GATEWAY, tuple(symbols))
        for price in answer.prices:
            delivery = Delivery(
                market_channel(price.symbol),
                DeliveryClass.LATEST,
                price.seq,
                price.symbol,
                frame("market:price", price),
            )
            self._hub.deliver(delivery, self._loop.time())
        self.schedule()
        return list(answer.unknown)

    def evict(self, channel: str, user_id: str) -> None:
        """Unsubscribe all sockets of a user from a channel."""
        for sink in self._hub.sinks_of(channel):
            if sink.user_id == user_id:
                self.leave(sink, channel)
                sink.unsubscribed(channel)

    def leave(self, sink: Sink, channel: str) -> None:
        """Unsubscribe a socket."""
        if self._hub.leave(sink, channel):
            self.release(channel)

    def _fill_gaps(self) -> None:
        """Fetch what is missing, one request a channel at a time."""
        for name in list(self._hub.gaps):
            self._hub.gaps.discard(name)
            channel = self._hub.channels.get(name)
            gap = None if channel is None else channel.stream.missing(name)
            if gap is not None and name not in self._filling and self._tasks is not None:
                self._filling.add(name)
                metrics.GAPS.inc()
                self._tasks.create_task(self._fill(gap))

    async def _fill(self, gap: Gap) -> None:
        log.info("filling_gap", after=gap.after, through=gap.through)
        try:
            if not await self._retry(partial(self._fetch, gap), lambda: gap.channel in self._hub.channels):
                log.error("gap_not_filled", after=gap.after, through=gap.through)
                metrics.GAPS_LOST.inc()
                self._hub.fill(gap, gap.through + 1, (), self._loop.time())
                self.schedule()
        finally:
            self._filling.discard(gap.channel)
        self._hub.heard(gap.channel, 0)
        self._fill_gaps()

    async def _fetch(self, gap: Gap) -> None:
        kind, _, key = gap.channel.partition(":")
        if kind == "room":
            replay = await self._backend.replay_messages(GATEWAY, key, gap.after, gap.through)
        elif kind == "inbox":
            replay = await self._backend.replay_inbox(Caller(user_id=key), gap.after, gap.through)
        else:
            replay = ReplayedFrames(first=gap.through + 1, frames=())
        reached = gap._replace(through=min(gap.through, max(gap.after, replay.first + len(replay.frames) - 1)))
        if not replay.frames:
            log.error("gap_not_filled", after=gap.after, through=gap.through)
            metrics.GAPS_LOST.inc()
            reached = gap
        self._hub.fill(reached, replay.first, [bytes(item) for item in replay.frames], self._loop.time())
        self.schedule()

    async def _retry(
        self, attempt: Callable[[], Awaitable[object]], is_wanted: Callable[[], bool] = lambda: True
    ) -> bool:
        """Until it succeeds, or is not wanted any more: what is lossless is not given up. At most 200 attempts are
        under way at once. False if it is refused again and again."""
        pause_s = RETRY_FIRST_S
        refusals = 0
        while is_wanted():
            try:
                async with self._slots:
                    await attempt()
                return True
            except (Unavailable, Refusal) as error:
                is_refusal = isinstance(error, Refusal) and error.code is not ErrorCode.UNAVAILABLE
                refusals = refusals + 1 if is_refusal else 0
                if refusals == REFUSALS_MAX:
                    log.error("refused_for_good", reason=str(error))
                    return False
                log.warning("will_try_again", reason=str(error), retry_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)
        return True
