"""Leases of replicas: this process renews its own, and looks at those of silent ones.

A lease is not a lock: an owner keeps its partitions without one. While a silent replica's queue exists, the lease tells
whether the replica is frozen.
"""

import asyncio
import time

from chat_service import metrics
from chat_service.partitions.owner_store import OwnerStore
from shared.bus.bus import Bus
from shared.errors import Unavailable
from shared.telemetry import logs
from shared.waiting import until_next

log = logs.get(__name__)

LEASE_S = 5.0
RENEW_INTERVAL_S = 1.0
PROBE_LIMIT_S = 2.0


class Leases:
    """The lease of this replica, and the question whether another replica is gone."""

    def __init__(self, bus: Bus, store: OwnerStore) -> None:
        self._bus = bus
        self._store = store
        self._leased_until_s = 0.0
        metrics.LEASE_SECONDS.set_function(lambda: max(self._leased_until_s - time.monotonic(), 0.0))

    async def renew(self) -> None:
        """Renew the lease each second, until cancelled.

        Await nothing else, so that, while the database answers, only a frozen process lets the lease expire.
        """
        while True:
            asked_at_s = time.monotonic()
            try:
                await self._store.renew(self._bus.name)
                self._leased_until_s = asked_at_s + LEASE_S
            except Unavailable as error:
                log.warning("lease_not_renewed", reason=str(error))
            await until_next(RENEW_INTERVAL_S)

    async def end(self) -> None:
        """End the lease: the process stops."""
        try:
            await self._store.end_lease(self._bus.name)
        except Unavailable as error:
            log.warning("lease_not_ended", reason=str(error))

    async def is_gone(self, node: str, queue: str) -> bool:
        """Return whether a silent replica is gone: the broker does not have its queue, or its lease is over."""
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):  # a blocked broker answers neither open nor close of its channel
                if await self._bus.queues.is_gone(queue):
                    return True
            age_s = await self._store.lease_age_s(node)
        except (Unavailable, TimeoutError) as error:
            log.warning("replica_not_probed", replica=node, reason=str(error) or "no answer in time")
            return False
        return age_s is None or age_s > LEASE_S
