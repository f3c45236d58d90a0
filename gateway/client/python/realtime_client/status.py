"""State and counters of a client. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """State of a client's connection.

    WAITING precedes the next connection attempt. CLOSED is final unless the application calls `connect`.
    """

    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(slots=True)
class Stats:
    """Counters since the client was created. `latency_s` is the round trip of the last heartbeat."""

    frames_in: int = 0
    frames_out: int = 0
    repeats: int = 0
    reconnects: int = 0
    latency_s: float | None = None
