"""Leaving without a stampede: every client is told when to come back, then closed, in paced batches."""

import asyncio
import random

from gateway import metrics
from gateway.live.connections import Connections
from gateway.live.session import Close
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import DrainData, frame
from shared.telemetry import logs

log = logs.get(__name__)

BATCHES = 20
RECONNECT_MIN_MS = 100
IN_FLIGHT_TIMEOUT_S = 1.0
LATE_SPREAD_MS = 1000


def farewell(spread_ms: int) -> Close:
    """`server:drain` with a time of its own, and 1012."""
    delay_ms = random.randint(RECONNECT_MIN_MS, RECONNECT_MIN_MS + spread_ms)  # noqa: S311 - not a secret
    return Close(CloseCode.RESTARTING, "restarting", frame("server:drain", DrainData(reconnect_after_ms=delay_ms)))


async def drain(connections: Connections, over_s: float) -> None:
    """Close every socket with `server:drain` and 1012, spread over `over_s` at most. Each gets another time.

    What a socket has in flight is answered first, if that takes no longer than 1 s. Who is being upgraded meanwhile is
    waited for, and closed by `live`, which knows that the gateway is leaving.
    """
    metrics.DRAINING.set(1)
    sockets = list(connections.sockets)
    log.info("draining", connections=len(sockets), over_s=over_s)
    spread_ms = RECONNECT_MIN_MS + len(sockets)  # 1,000 clients a second, at most
    size = max(1, -(-len(sockets) // BATCHES))
    for first in range(0, len(sockets), size):
        for socket in sockets[first : first + size]:
            metrics.DRAINED.inc()
            connections.spawn(socket.finish(farewell(spread_ms), IN_FLIGHT_TIMEOUT_S))
        await asyncio.sleep(over_s / BATCHES if len(sockets) > BATCHES else 0)
    await connections.all_gone.wait()
