"""The partitions that a replica runs now, by number, and the gauges that show them."""

from collections.abc import Iterator, Mapping

from chat_service import metrics
from chat_service.partitions.partition import Partition
from shared.bus.topology import PARTITIONS
from shared.telemetry import logs

log = logs.get(__name__)


class RunningPartitions:
    """At most one partition per number, each under one term."""

    def __init__(self) -> None:
        self._partitions: dict[int, Partition] = {}
        metrics.CACHED_ROOMS.set_function(lambda: sum(one.cached_rooms for one in self))

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._partitions.values())

    def get(self, number: int) -> Partition | None:
        """Return a partition; None if it does not run here. HOT."""
        return self._partitions.get(number)

    def terms(self) -> dict[int, int]:
        """Return the term of each partition."""
        return {number: partition.term for number, partition in self._partitions.items()}

    def is_new(self, number: int, term: int) -> bool:
        """Return whether a partition does not run yet, or only under an older term."""
        running = self._partitions.get(number)
        return running is None or running.term < term

    def add(self, partition: Partition) -> None:
        """Add a partition; abandon the one that ran under an older term."""
        before = self._partitions.get(partition.number)
        if before is not None:
            before.abandon()
        self._partitions[partition.number] = partition
        self._measure()

    def take(self, number: int) -> Partition | None:
        """Remove a partition, and return it if it was there."""
        partition = self._partitions.pop(number, None)
        self._measure()
        return partition

    def take_all(self) -> list[Partition]:
        """Remove all partitions, and return them."""
        partitions = list(self)
        self._partitions.clear()
        self._measure()
        return partitions

    def abandon_all(self) -> None:
        """Abandon all partitions and remove them."""
        for partition in self.take_all():
            partition.abandon()

    def abandon_lost(self, newest_terms: Mapping[int, int]) -> None:
        """Abandon and remove each partition that has an owner of a newer term."""
        for partition in list(self):
            if newest_terms.get(partition.number, 0) > partition.term:
                log.info("partition_lost", partition=partition.number)
                partition.abandon()
                self.take(partition.number)

    def _measure(self) -> None:
        metrics.PARTITIONS.set(len(self._partitions))
        for number in range(PARTITIONS):
            metrics.PARTITION_OWNED.labels(str(number)).set(number in self._partitions)
