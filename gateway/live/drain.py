"""Paced drain: every client receives its own reconnect delay and is then closed, in batches."""

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


def spread_ms(count: int) -> int:
    """Return the time over which `count` clients reconnect: at most 1,000 per second."""
    return RECONNECT_MIN_MS + count


def farewell(within_ms: int) -> Close:
    """Return `server:drain` with a random reconnect delay within `within_ms`, and close code 1012."""
    delay_ms = random.randint(RECONNECT_MIN_MS, RECONNECT_MIN_MS + within_ms)  # noqa: S311 - not a secret
    return Close(CloseCode.RESTARTING, "restarting", frame("server:drain", DrainData(reconnect_after_ms=delay_ms)))


async def drain(connections: Connections, over_s: float) -> None:
    """Close every socket with `server:drain` and 1012, spread over at most `over_s`.

    Each client gets its own reconnect delay. Requests in flight are answered first, for at most 1 s. Call
    `LiveEndpoint.stop_admitting` first: `drain` closes only the sockets open when it begins, and then waits until no
    socket is left.
    """
    metrics.DRAINING.set(1)
    sockets = list(connections.sockets)
    log.info("draining", connections=len(sockets), over_s=over_s)
    delay_ms = spread_ms(len(sockets))
    size = max(1, -(-len(sockets) // BATCHES))
    for first in range(0, len(sockets), size):
        for socket in sockets[first : first + size]:
            metrics.DRAINED.inc()
            connections.spawn(socket.finish(farewell(delay_ms), IN_FLIGHT_TIMEOUT_S))
        await asyncio.sleep(over_s / BATCHES if len(sockets) > BATCHES else 0)
    await connections.all_gone.wait()
