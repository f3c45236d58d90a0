"""Leaving without a stampede: every client is told when to come back, then closed, in paced batches."""

import asyncio
import random

from gateway.connections import Connections
from gateway.session import Close
from shared import logs
from shared.protocol import CloseCode, frame

log = logs.get(__name__)

BATCHES = 20
RECONNECT_MIN_MS = 100


async def drain(connections: Connections, over_s: float) -> None:
    """Close every socket with `server:drain` and 1012, spread over `over_s` at most. Each gets another time."""
    sockets = list(connections.sockets)
    if not sockets:
        return
    log.info("draining", connections=len(sockets), over_s=over_s)
    spread_ms = RECONNECT_MIN_MS + len(sockets)  # 1,000 clients a second, at most
    size = max(1, -(-len(sockets) // BATCHES))
    for first in range(0, len(sockets), size):
        for socket in sockets[first : first + size]:
            delay_ms = random.randint(RECONNECT_MIN_MS, RECONNECT_MIN_MS + spread_ms)  # noqa: S311 - not a secret
            farewell = frame("server:drain", {"reconnectAfterMs": delay_ms})
            socket.close(Close(CloseCode.RESTARTING, "restarting", farewell))
        await asyncio.sleep(over_s / BATCHES if len(sockets) > BATCHES else 0)
    await connections.all_gone.wait()
