"""The shell of ownership: heartbeats, claims, hand-overs, and the dispatch of bodies to their partitions.

Order of a claim: compare-and-set in `partition_owners`, create the partition, send the first heartbeat under the new
term. No body is decided under a term that this process does not hold. A claim binds and declares nothing at the broker:
with a frozen broker node, that would take a minute.

A process that has stalled for over a second may have lost its partitions. It checks its own clock before each body;
after a stall it drops its connection, and with it its queue and its partitions, and starts over.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from chat_service import metrics
from chat_service.partitions.answers import moved_delivery
from chat_service.partitions.claimed_repair import ClaimedRepair
from chat_service.partitions.command_age import CommandAges
from chat_service.partitions.commit_path import Services
from chat_service.partitions.hand_overs import HandOvers
from chat_service.partitions.leases import Leases
from chat_service.partitions.owner_store import OwnerStore
from chat_service.partitions.ownership import BEAT_MS, Claim, HandOver, OwnerRecord, Probe, ReplicaView
from chat_service.partitions.partition import Partition
from chat_service.partitions.running_partitions import RunningPartitions
from chat_service.storage.repair import Repair
from shared.bus.broadcast_queue import follow_broadcasts
from shared.bus.bus import Bus
from shared.bus.delivery import Delivery
from shared.bus.topology import BEATS, OWNER_QUEUE
from shared.commands.body import decode_body
from shared.commands.broadcasts import Broadcast, GatewayBeat, ProfileUpdated, ReplicaBeat
from shared.encoding import to_json
from shared.errors import Malformed, StaleOwner, Unavailable
from shared.telemetry import logs
from shared.waiting import is_set_within, until_next

log = logs.get(__name__)

STALL_MS = 1_000
TICK_S = BEAT_MS / 1000
REFRESH_S = 5.0


class OwnedPartitions:
    """The partitions of this replica. Make it before the bus is entered: it declares two private queues."""

    def __init__(
        self,
        bus: Bus,
        store: OwnerStore,
        replicas: ReplicaView,
        repair: Repair,
        services: Services,
        is_database_unavailable: Callable[[], bool],
    ) -> None:
        self._bus = bus
        self._store = store
        self._leases = Leases(bus, store)
        self._repair = ClaimedRepair(repair)
        self._services = services
        self._is_database_unavailable = is_database_unavailable
        self._queue = bus.private_queue("chat", self._on_body, OWNER_QUEUE)
        self._hand_overs = HandOvers(store, replicas, bus.name, self._queue, services.monotonic_ms)
        follow_broadcasts(bus, self._on_broadcast)
        self.replicas = replicas
        self._ages = CommandAges()
        self._running = RunningPartitions()
        self._busy: set[int | str] = set()  # partitions being claimed or handed over, queues being probed
        self._ticked_at_ms = self._now_ms()
        self._is_leaving = False
        self._tasks = asyncio.TaskGroup()
        bus.on_disconnected.append(self._on_disconnected)
        bus.on_connected.append(self._on_connected)

    # Connection -----------------------------------------------------------------------------------------------------

    async def _on_connected(self) -> None:
        """Start with the new queue and no partition; learn who owns what."""
        self.replicas.queue = self._queue.name
        self.replicas.started_ms = self._now_ms()
        await self._refresh()

    def _on_disconnected(self) -> None:
        """Abandon all partitions: queue and answers are lost with the connection. The log is the truth."""
        self._running.abandon_all()
        self._hand_overs.forget()

    async def _refresh(self) -> None:
        try:
            for partition, owner in (await self._store.owners()).items():
                self.replicas.learn(partition, owner)
        except Unavailable as error:
            log.warning("owners_not_read", reason=str(error))

    async def _refresh_periodically(self) -> None:
        while True:
            await until_next(REFRESH_S)
            await self._refresh()
            self._adopt()

    # Bodies and broadcasts in -----------------------------------------------------------------------------------------

    def _on_body(self, body: bytes) -> None:
        if self._has_stalled():
            self._bus.drop_connection("the process stalled")
            return
        try:
            head, commands = decode_body(body)
        except Malformed as error:
            log.error("bad_body", reason=str(error))
            return
        now_ms = self._now_ms()
        age_ms = self._ages.age_ms(head.gateway, head.sent_at_monotonic_ms, now_ms)
        partition = self._running.get(head.partition)
        if partition is None or partition.term != head.term or age_ms is None or self._is_leaving:
            self._bus.send_deliveries([moved_delivery(head)], [head.reply_to])
            return
        partition.accept(head, commands, age_ms)

    def _on_broadcast(self, broadcast: Broadcast) -> None:
        match broadcast:
            case GatewayBeat(gateway=gateway, sent_at_monotonic_ms=sent_at_monotonic_ms):
                self._ages.note(gateway, sent_at_monotonic_ms, self._now_ms())
            case ProfileUpdated():
                self._services.stores.profiles.learn(broadcast)
            case ReplicaBeat(node=node) if node != self._bus.name:
                self._learn(broadcast)
            case _:
                pass

    def _learn(self, beat: ReplicaBeat) -> None:
        now_ms = self._now_ms()
        if beat.is_leaving:
            self.replicas.note_leaving(beat.node)
        else:
            self.replicas.beat(beat.node, beat.queue, beat.terms, now_ms)
        for moved in beat.handed_over:
            self.replicas.learn(moved.partition, OwnerRecord(moved.node, moved.queue, moved.term))
        self._running.abandon_lost({number: owner.term for number, owner in self.replicas.owners.items()})
        self._adopt()

    def _has_stalled(self) -> bool:
        return self._now_ms() - self._ticked_at_ms > STALL_MS

    # Regular work ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Send heartbeats, claim and hand over until `stop` is set, then hand everything over."""
        async with self._tasks:
            background = [
                self._tasks.create_task(work)
                for work in (
                    self._leases.renew(),
                    self._services.records.run(),
                    self._repair.run(self._running.terms, self._bus.send_deliveries),
                    self._refresh_periodically(),
                )
            ]
            while not stop.is_set():
                if self._has_stalled():
                    self._bus.drop_connection("the process stalled")
                self._ticked_at_ms = self._now_ms()
                self._tick()
                await is_set_within(stop, min(TICK_S, self.replicas.ms_until_silent(self._now_ms()) / 1000))
            await self._leave()
            for task in background:
                task.cancel()

    def _tick(self) -> None:
        if not self._bus.is_connected or self._is_leaving:
            return
        self._beat()
        is_unavailable = self._is_database_unavailable()
        announcements: list[Delivery] = []
        for partition in self._running:
            announcements += partition.announcements()
            if is_unavailable:
                partition.refuse_waiting()
        self._bus.send_deliveries(announcements)  # of all partitions at once: gateways wake once
        for action in self.replicas.actions(self._now_ms()):
            match action:
                case Claim(number, seen):
                    self._start(number, self._claim(number, seen))
                case HandOver(number, node, queue):
                    self._start(number, self._hand_over(number, node, queue))
                case Probe(node, queue):
                    self._start(queue, self._probe(node, queue))
        metrics.REPLICAS.set(len(self.replicas.live_nodes(self._now_ms())))

    def _start(self, key: int | str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` unless work with the same key is running."""
        if key in self._busy:
            work.close()
            return
        self._busy.add(key)
        self._tasks.create_task(work).add_done_callback(lambda _: self._busy.discard(key))

    def _beat(self) -> None:
        beat = ReplicaBeat(
            node=self._bus.name,
            queue=self._queue.name,
            terms=self._running.terms(),
            handed_over=self._hand_overs.announced(),
            is_leaving=self._is_leaving,
            database_ms=self._services.clock_ms(),
            generation=self._services.generation,
        )
        self._bus.send(BEATS, "", to_json(beat))

    # Claims and hand-overs ------------------------------------------------------------------------------------------

    async def _claim(self, partition: int, seen: OwnerRecord) -> None:
        queue = self._queue.name
        try:
            owned = await self._store.replace(partition, seen, self._bus.name, queue)
            if owned is None:
                owned = await self._store.owner(partition)  # another replica was faster
        except Unavailable as error:
            log.warning("partition_not_claimed", partition=partition, reason=str(error))
            return
        self.replicas.learn(partition, owned)
        self._adopt()

    def _adopt(self) -> None:
        """Start every partition whose record names this process and its current queue.

        Not while leaving: a stopped partition's record names this process until it is handed over. Not while
        disconnected: the records then name a queue that is gone. Not one that is being handed over: its record names
        this process until the end, and two partitions could then insert into one room.
        """
        if self._is_leaving or not self._bus.is_connected:
            return
        for number, owned in self.replicas.owners.items():
            is_mine = owned.queue == self._queue.name and owned.node == self._bus.name
            if is_mine and not self._hand_overs.is_under_way(number) and self._running.is_new(number, owned.term):
                self._begin(number, owned.term)

    def _begin(self, number: int, term: int) -> None:
        log.info("partition_owned", node=self._bus.name, partition=number, term=term)
        partition = Partition(number, term, self._services, self._check_term)
        self._running.add(partition)
        self._tasks.create_task(partition.run())
        self._repair.claimed(number)
        self._beat()

    def repaired_terms(self) -> dict[int, int]:
        """Return the terms of the owned partitions whose records were repaired under them."""
        return self._repair.repaired(self._running.terms())

    async def _check_term(self, number: int, term: int) -> None:
        """Raise StaleOwner if a majority knows a newer owner. Raises Unavailable."""
        owner = await self._store.owner(number)
        if owner.term > term:
            self.replicas.learn(number, owner)
            raise StaleOwner(f"partition {number} has an owner of a newer term")

    async def _hand_over(self, number: int, node: str, queue: str) -> None:
        partition = self._running.take(number)
        if partition is None:
            return
        await self._hand_overs.hand_over(partition, node, queue)
        self._beat()

    async def _probe(self, node: str, queue: str) -> None:
        """Treat a silent replica's queue as gone if the broker lacks it, or if the replica's lease has expired."""
        if await self._leases.is_gone(node, queue):
            log.warning("replica_gone", replica=node)
            self.replicas.note_queue_gone(queue)
            self._tick()

    async def _leave(self) -> None:
        """Finish the work in progress, and hand every partition over to its best live replica."""
        self._is_leaving = True
        self._beat()
        leaving = self._running.take_all()
        await asyncio.gather(*(partition.stop() for partition in leaving))
        for partition in leaving:
            node = self.replicas.successor_of(partition.number, self._now_ms())
            queue = None if node is None else self.replicas.queue_of(node)
            await self._hand_overs.transfer(partition, node or "", queue or "")
            self._beat()
        self._beat()
        await self._leases.end()

    async def readiness(self) -> str | None:
        """Return None while this replica owns every partition of its share, else the reason."""
        if not self._bus.is_connected:
            return "partitions: not connected to the broker"
        missing = sorted(self.replicas.share(self._now_ms()) - self._running.terms().keys())
        return f"partitions: not owned yet: {', '.join(map(str, missing))}" if missing else None

    def _now_ms(self) -> int:
        return self._services.monotonic_ms()
