"""The echo: a line that a process sends to itself through the broker, to learn whether the broker still serves it.

It detects failures that raise no error: a frozen node, a broker that blocks publishers, a stalled consumer.
"""

import asyncio
import time

from shared.bus.broker_connection import BrokerConnection
from shared.bus.private_queue import PrivateQueue
from shared.bus.topology import PRIVATE_QUEUE
from shared.waiting import until_next

INTERVAL_S = 0.5
TIMEOUT_S = 2.5
STOOD_STILL_S = 1.0  # lateness from here on counts as silence: the process itself stood still


class Echo:
    """The echo of one process, and when it was last heard."""

    def __init__(self, process: str) -> None:
        self.queue = PrivateQueue("echo", process, PRIVATE_QUEUE, self._on_body)
        self._heard_at_s = 0.0
        self._heard = asyncio.Event()

    def send(self, link: BrokerConnection) -> None:
        """Send a line to this process."""
        link.send("", self.queue.name, b"echo")

    async def round_trip(self, link: BrokerConnection) -> None:
        """Return once a line of this process has come back through the broker. Raises ConnectionError.

        A broker under an alarm (memory, disk) accepts connections and delivers, but reads nothing from a connection
        that publishes, acknowledgements included. A consumer would receive the same messages again at each reconnect,
        until the delivery limit of their queue moves them to realtime.dead.
        """
        self._heard.clear()
        self.send(link)
        waits = [asyncio.ensure_future(event.wait()) for event in (self._heard, link.closed)]
        try:
            await asyncio.wait(waits, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._heard.is_set():
            raise ConnectionError("the broker takes no messages; an alarm (memory, disk) may block publishers")

    async def until_next(self) -> None:
        """Wait until the next line is due.

        Lateness of the event loop below 1 s does not count: it says nothing about the broker. A longer stall counts
        as silence.
        """
        late_s = await until_next(INTERVAL_S)
        if late_s < STOOD_STILL_S:
            self._heard_at_s += late_s

    def is_overdue(self) -> bool:
        """Return whether no line has come back in time."""
        return time.monotonic() - self._heard_at_s > TIMEOUT_S

    def _on_body(self, _: bytes) -> None:
        self._heard_at_s = time.monotonic()
        self._heard.set()
