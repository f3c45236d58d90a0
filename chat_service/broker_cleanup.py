"""Removal of the queues and exchanges of earlier releases from the broker."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from shared.backoff import Backoff
from shared.bus.bus import Bus
from shared.bus.topology import OLD_EXCHANGES, OLD_QUEUES
from shared.errors import Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0


async def delete_old_topology(bus: Bus) -> None:
    """Delete the queues of earlier releases, then their exchanges, then the queues again; retry until it is done.

    Commands in the queues were never answered, and have long expired. A gateway of 0.2 keeps its exchange in use, and
    may declare its queues again. So once the exchange is gone, so are those gateways, and the second round is the last.
    """
    await bus.wait_connected()
    await _delete(OLD_QUEUES, bus.queues.delete)
    await _delete(OLD_EXCHANGES, bus.queues.delete_unused_exchange)
    await _delete(OLD_QUEUES, bus.queues.delete)
    log.info("old_topology_deleted")


async def _delete(names: Iterable[str], delete: Callable[[str], Awaitable[None]]) -> None:
    backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
    for name in names:
        while True:
            try:
                await delete(name)
                break
            except Unavailable as error:
                log.warning("old_topology_not_deleted", name=name, reason=str(error))
                await asyncio.sleep(backoff.next_s())
