"""The queue on which a process hears the broadcasts of all others."""

from collections.abc import Callable
from typing import Protocol

from shared.bus.private_queue import PrivateQueue
from shared.bus.topology import BEATS
from shared.commands.broadcasts import Broadcast, decode_broadcast
from shared.errors import Malformed
from shared.telemetry import logs

log = logs.get(__name__)


class QueueMaker(Protocol):
    """The part of the bus that makes private queues."""

    def private_queue(self, prefix: str, on_body: Callable[[bytes], None]) -> PrivateQueue:
        """Return a queue of this process, declared at each connection."""


def follow_broadcasts(bus: QueueMaker, on_broadcast: Callable[[Broadcast], None]) -> None:
    """Pass each broadcast to `on_broadcast`. Call it before the bus is entered: it declares a private queue."""

    def on_body(body: bytes) -> None:
        try:
            broadcast = decode_broadcast(body)
        except Malformed as error:
            log.error("bad_broadcast", reason=str(error))
        else:
            on_broadcast(broadcast)

    bus.private_queue("beats", on_body).bindings.add((BEATS, ""))
