"""Options of a client. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Timeouts, backoff and bounds of one client."""

    backoff_first_s: float = 0.5
    backoff_max_s: float = 30.0
    connect_timeout_s: float = 10.0  # for each step: token, socket, authentication
    answer_timeout_s: float = 10.0  # the link is dead if no frame arrives for this long after a request
    heartbeat_s: float | None = None  # None: the interval that the server announces
    request_timeout_s: float = 120.0  # messages and other requests; subscriptions have no deadline
    pending_max: int = 1000
