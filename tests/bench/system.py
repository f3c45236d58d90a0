"""The system under load: everything that `make run` starts, with limits that do not stop a load generator."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests.bench.processes import system_pids
from tests.support.live_client import RestClient
from tests.support.local_system import LocalSystem
from tests.support.tokens import SECRET

ROOMS_AT_ONCE = 20

LIMITS = {
    "GATEWAYS": "1",
    "GATEWAY_HOST": "127.0.0.1",
    "JWT_SECRET": SECRET,
    "RATE_LIMIT_MESSAGES_PER_MINUTE": "10000000",
    "MAX_CONNECTIONS": "19500",
    "MAX_CONNECTIONS_PER_USER": "1000",
    "CONNECTION_TIMEOUT_S": "120",
    "MARKET_SOURCE": "amqp",  # no simulated prices unless a scenario needs them
    "LOG_LEVEL": "warning",
}


@dataclass(frozen=True, slots=True)
class Bench:
    """A running system."""

    local: LocalSystem

    @property
    def host(self) -> str:
        """Return the gateway's host."""
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        """Return the gateway's port."""
        return urlsplit(self.url).port or 80

    @property
    def url(self) -> str:
        """Return the gateway's address."""
        return self.local.entries()["GATEWAY_URL"]

    @property
    def amqp_url(self) -> str:
        """Return the broker's address."""
        return self.local.entries()["AMQP_URL"]

    @property
    def pids(self) -> dict[str, int]:
        """Return every process of the system except the supervisor."""
        return {name: pid for name, pid in system_pids(self.local.entries()).items() if name != "supervisor"}

    def rooms(self, count: int) -> list[str]:
        """Create public rooms."""

        async def create() -> list[str]:
            rest = RestClient(self.url, "load-operator")
            rooms: list[str] = []
            while len(rooms) < count:
                numbers = range(len(rooms), min(len(rooms) + ROOMS_AT_ONCE, count))
                rooms += await asyncio.gather(*(rest.create_room(f"Load {number}") for number in numbers))
            return rooms

        return asyncio.run(create())


@contextmanager
def running(settings: Mapping[str, str] | None = None) -> Iterator[Bench]:
    """Yield a fresh system."""
    environment = {**LIMITS, **(settings or {})}
    with TemporaryDirectory(prefix="realtime-load-") as directory, LocalSystem(Path(directory), environment) as local:
        yield Bench(local)
