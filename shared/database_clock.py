"""The database server's clock, as estimated by a process.

Times that several processes compare (leases, expiry, presence) are read from here, so a wrong host clock is harmless.
A chat_service whose host clock is off by more than 2 s reports that it is not ready; so does a gateway, by the times in
the heartbeats of the replicas.
"""

import asyncio

from shared.errors import Unavailable
from shared.mongo import Mongo
from shared.telemetry import logs, metrics
from shared.times import clock_problem, now_ms

log = logs.get(__name__)

INTERVAL_S = 5.0


class DatabaseClock:
    """Local time corrected by the measured skew; the local time itself until the first measurement."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._skew_ms = 0

    def now_ms(self) -> int:
        """Return the server's time in milliseconds since 1970."""
        return now_ms() + self._skew_ms

    async def run(self) -> None:
        """Measure every 5 s, until cancelled."""
        while True:
            try:
                await self.measure()
            except Unavailable as error:
                log.warning("clock_not_measured", reason=str(error))
            await asyncio.sleep(INTERVAL_S)

    async def measure(self) -> None:
        """Measure the skew once: server time minus local time at the middle of one call. Raises Unavailable."""
        before_ms = now_ms()
        server_ms = await self._mongo.server_time_ms()
        self._skew_ms = server_ms - (before_ms + now_ms()) // 2
        metrics.CLOCK_SKEW_SECONDS.set(self._skew_ms / 1000)

    async def readiness(self) -> str | None:
        """Return None while the host clock is right within 2 s; otherwise the reason."""
        return clock_problem(self._skew_ms)
