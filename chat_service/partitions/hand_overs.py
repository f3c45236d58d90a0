"""Hand-overs: another replica takes over a partition of this one; the heartbeats announce it for 5 s."""

from collections.abc import Callable

from chat_service.partitions.owner_store import OwnerStore
from chat_service.partitions.ownership import OwnerRecord, ReplicaView
from chat_service.partitions.partition import Partition
from shared.bus.private_queue import PrivateQueue
from shared.commands.broadcasts import HandedOver
from shared.errors import Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

ANNOUNCED_FOR_MS = 5_000


class HandOvers:
    """The hand-overs under way, and those of the last seconds."""

    def __init__(
        self, store: OwnerStore, replicas: ReplicaView, node: str, queue: PrivateQueue, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._replicas = replicas
        self._node = node
        self._queue = queue
        self._now_ms = now_ms
        self._announced: dict[int, tuple[HandedOver, int]] = {}
        self._under_way: set[int] = set()

    def announced(self) -> tuple[HandedOver, ...]:
        """Return the hand-overs to announce now."""
        now_ms = self._now_ms()
        self._announced = {number: kept for number, kept in self._announced.items() if kept[1] > now_ms}
        return tuple(moved for moved, _ in self._announced.values())

    def forget(self) -> None:
        """Forget the recent ones: the connection is lost."""
        self._announced.clear()

    def is_under_way(self, number: int) -> bool:
        """Return whether a partition is being handed over: its record names this process until the end."""
        return number in self._under_way

    async def hand_over(self, partition: Partition, node: str, queue: str) -> None:
        """Stop a partition and record its next owner."""
        self._under_way.add(partition.number)
        try:
            await partition.stop()
            await self.transfer(partition, node, queue)
        finally:
            self._under_way.discard(partition.number)

    async def transfer(self, partition: Partition, node: str, queue: str) -> None:
        """Record the next owner of a stopped partition, "" for none.

        If that fails, the record still names this process, which resumes unless it is stopping.
        """
        number = partition.number
        try:
            seen = OwnerRecord(self._node, self._queue.name, partition.term)
            successor = await self._store.replace(number, seen, node, queue)
        except Unavailable as error:
            log.warning("partition_not_handed_over", partition=number, reason=str(error))
            return
        if successor is None:
            return
        self._replicas.learn(number, successor)
        if node:
            moved = HandedOver(partition=number, node=node, queue=queue, term=successor.term)
            self._announced[number] = (moved, self._now_ms() + ANNOUNCED_FOR_MS)
