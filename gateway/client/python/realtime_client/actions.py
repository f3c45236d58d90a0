"""Actions that the core returns and the shell carries out. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from realtime_client.requests import RequestFailed


class TokenReason(StrEnum):
    """Reason for fetching a token."""

    CONNECT = "connect"
    EXPIRING = "expiring"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class FetchToken:
    """Fetch a token, then call `token_ready` or `token_failed`."""

    reason: TokenReason


@dataclass(frozen=True, slots=True)
class Open:
    """Open a socket and report its events under this connection number."""

    connection: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send a text frame on the current socket."""

    text: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the current socket, if there is one, without waiting for the closing handshake."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Pass an event to the application."""

    type: str
    data: Any


@dataclass(frozen=True, slots=True)
class Resolve:
    """Complete a request with the data of its answer."""

    id: int
    data: Any


@dataclass(frozen=True, slots=True)
class Fail:
    """Complete a request with an error."""

    id: int
    error: RequestFailed


LinkAction = FetchToken | Open | Send | Drop | Emit
Action = LinkAction | Resolve | Fail
