"""Removal of expired inbox entries. Idempotent, so every replica runs it."""

import asyncio
from collections.abc import Callable

from notifier import metrics
from notifier.inbox.store import InboxStore
from shared.errors import Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

INTERVAL_S = 600.0


async def sweep_inboxes(store: InboxStore, clock_ms: Callable[[], int]) -> None:
    """Remove expired entries now and every ten minutes, until cancelled."""
    while True:
        try:
            while removed := await store.sweep(clock_ms()):
                metrics.ENTRIES_EXPIRED.inc(removed)
        except Unavailable as error:
            log.warning("sweep_delayed", reason=str(error), retry_in_s=INTERVAL_S)
        await asyncio.sleep(INTERVAL_S)
