"""A supervised program and its readiness probe."""

import http.client
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from deploy.local.command import CommandLine
from deploy.local.ports import LOOPBACK

_PROBE_TIMEOUT_S = 2.0
_QUOTED_BYTES = 500


class Rank(IntEnum):
    """The stop order: the highest rank is stopped first, equal ranks together."""

    EPMD = 0
    BROKER = 1
    DATABASE = 2
    SERVICE = 3
    GATEWAY = 4


@dataclass(frozen=True, slots=True)
class Program:
    """One program to keep running.

    `why_not_ready` returns None if the program is ready, otherwise the reason; it may block for some seconds. `shows`
    selects the lines of its output for the console.
    """

    name: str
    rank: Rank
    command: CommandLine
    why_not_ready: Callable[[], str | None]
    stop_timeout_s: float
    shows: Callable[[str], bool] = lambda line: True


def ready_if(is_ready: Callable[[], bool]) -> Callable[[], str | None]:
    """Turn a boolean probe into a `why_not_ready`."""
    return lambda: None if is_ready() else "it does not answer"


def ready_over_http(admin_port: int) -> Callable[[], str | None]:
    """Return a `why_not_ready` that queries `/readyz` on a loopback port."""

    def why_not_ready() -> str | None:
        connection = http.client.HTTPConnection(LOOPBACK, admin_port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            body = response.read(_QUOTED_BYTES).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer on port {admin_port} ({error})"
        finally:
            connection.close()
        return None if response.status == 200 else f"/readyz on port {admin_port} answers {response.status} {body}"

    return why_not_ready
