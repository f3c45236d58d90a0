"""The shell around `Activity`: queries chat_service for counts, binds the shards of rooms, and writes due frames."""

import asyncio
from functools import partial

from gateway import metrics
from gateway.backend import Backend
from gateway.background import Spawn
from gateway.fanout.activity import Activity
from gateway.fanout.activity_rooms import ActivitySink
from gateway.fanout.batch import Batch
from gateway.fanout.bindings import ShardBindings
from gateway.fanout.retries import Retries
from gateway.fanout.wire import text_frame
from shared.bus.delivery import Delivery, room_channel
from shared.bus.topology import shard_of
from shared.commands.activity import RoomUnread
from shared.commands.command import Caller
from shared.errors import Unavailable
from shared.protocol.activity_frames import ActivitySubscribedData
from shared.telemetry import logs

log = logs.get(__name__)

SLICE_S = 0.1
# A slice of 64 sockets with 500 rooms each takes some 3 ms. The other sockets follow in the next slices and stay spread
# over them, since each is due 1 s after its own flush.
SOCKETS_PER_SLICE = 64
NEXT_SLICE_S = 0.02
HOLDER = "activity/"  # of channels that `ShardBindings` keeps bound


class ActivityFeed:
    """The channel `activity` of one gateway process."""

    def __init__(self, backend: Backend, bindings: ShardBindings, retries: Retries, spawn: Spawn) -> None:
        self._backend = backend
        self._bindings = bindings
        self._retries = retries
        self._spawn = spawn
        self._activity = Activity()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_querying = False
        self._rechecking: asyncio.Task[None] | None = None

    @property
    def is_used(self) -> bool:
        """Return whether any socket needs lines."""
        return self._activity.is_used

    def deliver(self, delivery: Delivery) -> None:
        """Note a line. A bug costs one line, not those after it. HOT."""
        try:
            self._activity.deliver(delivery)
        except Exception:
            log.exception("activity_failed", kind=delivery.kind.name)
        self._go_on()

    # Sockets --------------------------------------------------------------------------------------------------------

    async def subscribe(self, sink: ActivitySink) -> ActivitySubscribedData:
        """Make a socket follow its user's rooms, and return the answer. Raises Refusal and Unavailable."""
        await self._query_all(sink.user_id, sink)
        metrics.ACTIVITY_SOCKETS.set(self._activity.sockets)
        return self._activity.greeting(sink)

    def forget(self, sink: ActivitySink) -> None:
        """Forget a socket."""
        self._activity.forget(sink)
        metrics.ACTIVITY_SOCKETS.set(self._activity.sockets)
        self._release()

    async def _query_all(self, user_id: str, sink: ActivitySink | None = None) -> None:
        """Query the counts in all rooms of a user, and let a new socket follow these rooms."""
        query = self._activity.begin(user_id)
        try:
            counts = await self._all_counts(user_id)
            if sink is not None and sink.is_gone:
                raise Unavailable("the client has disconnected")
            self._activity.apply_all(user_id, query, counts)
            if sink is not None:
                self._activity.follow(sink)
        finally:
            self._activity.end(user_id, query)
            self._release()
            self._go_on()

    async def _all_counts(self, user_id: str) -> tuple[RoomUnread, ...]:
        """Query a user's counts, and again while the answer names rooms whose shards were not bound when it began.

        Otherwise a line between answer and binding would be missed.
        """
        caller = Caller(user_id=user_id)
        while True:
            bound = self._bindings.bound_shards()
            counts = (await self._backend.unread_counts(caller)).counts
            unfollowed = self._activity.unfollowed_of(counts)
            for room_id in unfollowed:
                self._activity.expect(room_id)
                await self._bindings.require(room_channel(room_id), HOLDER)
            if all(shard_of(room_channel(room_id)) in bound for room_id in unfollowed):
                return counts

    # Pairs of user and room -----------------------------------------------------------------------------------------

    async def _query_pairs(self) -> None:
        """Query until the counts of all pairs are known: one request at a time, of up to 500 pairs."""
        try:
            while pairs := self._activity.take_pairs():
                if not await self._retries.run(partial(self._query_batch, pairs)):
                    self._activity.requeue(pairs)
        finally:
            self._is_querying = False
        self._go_on()

    async def _query_batch(self, pairs: tuple[tuple[str, str], ...]) -> None:
        for room_id in self._activity.unfollowed_rooms(pairs):
            self._activity.expect(room_id)
            await self._bindings.require(room_channel(room_id), HOLDER)
        found = await self._backend.check_unread(pairs)
        self._activity.apply(pairs, found.counts)
        self._release()

    def _release(self) -> None:
        for name in self._activity.take_abandoned_channels():
            self._bindings.release(name, HOLDER)

    # The connection -------------------------------------------------------------------------------------------------

    def on_disconnected(self) -> None:
        """Show nothing until every user's rooms are queried again; answers under way predate the loss."""
        if self._rechecking is not None:
            self._rechecking.cancel()
        self._activity.suspend()

    def on_connected(self) -> None:
        """Query the rooms of all users again."""
        if self._rechecking is not None:
            self._rechecking.cancel()
        if self._activity.is_used:
            self._rechecking = self._spawn(self._recheck())

    async def _recheck(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for user_id in self._activity.user_ids:
                tasks.create_task(self._recheck_user(user_id))

    async def _recheck_user(self, user_id: str) -> None:
        is_known = await self._retries.run(partial(self._query_all, user_id), lambda: self._activity.follows(user_id))
        if not is_known:
            for sink in self._activity.sinks_of(user_id):
                sink.close_for_resume()

    # Out ------------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Schedule the next flush if none is scheduled; start to query unknown counts if no query is in progress."""
        if self._timer is None and self._activity.has_work:
            self._timer = self._loop.call_later(SLICE_S, self._flush)
        if not self._is_querying and self._activity.has_pairs_to_query:
            self._is_querying = True
            self._spawn(self._query_pairs())

    def _flush(self) -> None:
        self._timer = None
        due = self._activity.flush(self._loop.time(), SOCKETS_PER_SLICE)
        frames = size_bytes = 0
        for sink, own in due:
            batch = Batch.lossless([text_frame(payload) for payload in own])
            sink.write(batch)
            frames += len(own)
            size_bytes += len(batch.data)
        if due:
            metrics.WRITES.inc(len(due))
            metrics.FRAMES_OUT.labels("activity").inc(frames)
            metrics.BYTES_OUT.labels("activity").inc(size_bytes)
        if self._activity.has_work:
            pause_s = NEXT_SLICE_S if len(due) == SOCKETS_PER_SLICE else SLICE_S
            self._timer = self._loop.call_later(pause_s, self._flush)
