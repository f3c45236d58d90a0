"""The live chat_service replicas, by leases in MongoDB, and this replica's share of the partitions.

A lease lasts 3 s and is renewed every second, so a dead replica's partitions move within about 4 s; a stopping replica
gives its lease up at once. While ownership moves, two replicas may consume one partition's queue; the broker then
delivers to one of them only (single active consumer). Every write first checks the lease, so a replica that was frozen
or cut off finds it expired, drops its cache and starts over; the broker redelivers what it had in hand. Leases are
compared by the clocks of the hosts, which may differ by less than the 3 s.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from chat_service import metrics
from chat_service.node_store import NodeStore
from chat_service.partition import Partition
from chat_service.rendezvous import share_of
from shared.bus.bus import Bus
from shared.bus.consumer import Consumer
from shared.bus.topology import PARTITIONS, partition_queue
from shared.errors import Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

LEASE_MS = 3_000
RENEW_INTERVAL_S = 1.0

SWEEP_S = 0.5

OnNodes = Callable[[Collection[str]], None]


class Owned(NamedTuple):
    """A partition of this replica and its consumer."""

    partition: Partition
    consumer: Consumer


class Nodes:
    """Keeps this replica's lease, and consumes its partitions."""

    def __init__(
        self,
        store: NodeStore,
        bus: Bus,
        node_id: str,
        clock_ms: Callable[[], int],
        make_partition: Callable[[int, Callable[[], bool]], Partition],
        repair: Callable[[Collection[int]], Awaitable[int]],
        on_nodes: OnNodes,
    ) -> None:
        self._store = store
        self._bus = bus
        self._node_id = node_id
        self._clock_ms = clock_ms
        self._make_partition = make_partition
        self._repair = repair
        self._on_nodes = on_nodes
        self._owned: dict[int, Owned] = {}
        self._unrepaired: set[int] = set()
        self._leased_until_s = 0.0
        self._share: set[int] | None = None  # the partitions to consume, once known
        bus.on_disconnected.append(self._forget)
        metrics.LEASE_SECONDS.set_function(lambda: max(self._leased_until_s - time.monotonic(), 0.0))

    async def run(self, stop: asyncio.Event) -> None:
        """Renew the lease and rebalance until `stop` is set.

        Do not cancel it: inside the broker's client a cancellation may end only the call in progress.
        """
        while not stop.is_set():
            try:
                await self._renew()
            except Unavailable as error:
                log.warning("lease_not_renewed", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_INTERVAL_S):
                    await stop.wait()

    async def _renew(self) -> None:
        if self._owned and not self.is_current():
            log.warning("lease_expired")
            await self._take(set())
        now_ms, now_s = self._clock_ms(), time.monotonic()
        await self._store.renew(self._node_id, now_ms + LEASE_MS)
        self._leased_until_s = now_s + LEASE_MS / 1000
        alive = await self._store.alive(now_ms)
        metrics.REPLICAS.set(len(alive))
        self._on_nodes(alive)
        await self._take(share_of(self._node_id, range(PARTITIONS), alive))

    async def _take(self, mine: set[int]) -> None:
        """Consume exactly these partitions. Each new one starts with an empty memory."""
        self._share = mine
        leaving = self._owned.keys() - mine
        if leaving or mine - self._owned.keys():
            log.info("partitions_assigned", partitions=sorted(mine))
        await asyncio.gather(*(self._leave(self._owned.pop(number)) for number in leaving))
        taken = sorted(mine - self._owned.keys())
        for number in taken:
            partition = self._make_partition(number, self.is_current)
            self._owned[number] = Owned(partition, await self._bus.consume(partition_queue(number), partition.handle))
        metrics.PARTITIONS.set(len(self._owned))
        for number in range(PARTITIONS):
            metrics.PARTITION_OWNED.labels(str(number)).set(number in self._owned)
        self._unrepaired |= set(taken)
        if self._unrepaired:
            behind = await self._repair(self._unrepaired)
            self._unrepaired = set()
            log.info("records_repaired", rooms=behind)

    async def _leave(self, owned: Owned) -> None:
        await self._bus.stop(owned.consumer)
        await owned.partition.catch_up()
        try:
            await owned.partition.leave_typing()
        except Unavailable as error:
            log.warning("typing_end_not_sent", reason=str(error))

    def _forget(self) -> None:
        """Drop the memory of all partitions: another replica may write while the broker is out of reach."""
        for owned in self._owned.values():
            owned.partition.forget()

    def is_current(self) -> bool:
        """Return whether the lease holds, so that no other replica writes these partitions."""
        return time.monotonic() < self._leased_until_s

    async def sweep(self) -> None:
        """Write what lags behind, and end typing that was not renewed; until cancelled."""
        for number in itertools.cycle(range(PARTITIONS)):
            await asyncio.sleep(SWEEP_S / PARTITIONS)  # one at a time, because messages wait for the disk meanwhile
            if (owned := self._owned.get(number)) is None:
                continue
            await owned.partition.catch_up()
            try:
                await owned.partition.end_typing()
            except Unavailable as error:
                log.warning("typing_end_not_sent", reason=str(error))

    async def leave(self) -> None:
        """Finish the batches in hand, and give partitions and lease to the others at once."""
        await self._take(set())
        try:
            await self._store.release(self._node_id)
        except Unavailable as error:
            log.warning("lease_not_released", reason=str(error))

    async def readiness(self) -> str | None:
        """Return None while the lease holds, else the reason."""
        return None if self.is_current() else "lease: not renewed in time"

    async def partitions_readiness(self) -> str | None:
        """Return None while this replica consumes its whole share, else the reason."""
        if self._share is None:
            return "partitions: not assigned yet"
        taken = {number for number, owned in self._owned.items() if owned.consumer.is_attached}
        missing = sorted(self._share - taken)
        return f"partitions: not consumed yet: {', '.join(map(str, missing))}" if missing else None
