"""The system under test: two of each service, with a broker and a database that can be killed."""

import asyncio
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.local.leftovers import MARK_VARIABLE
from shared.ids import Prefix, new_id
from tests.bench.processes import memory_bytes
from tests.chaos.plan import REPLICAS, SERVICES
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem
from tests.support.services import free_port
from tests.support.tokens import SECRET

SETTINGS = {
    "GATEWAYS": str(REPLICAS),
    "CHAT_SERVICES": str(REPLICAS),
    "MARKET_FEEDS": str(REPLICAS),
    "NOTIFIERS": str(REPLICAS),
    "GATEWAY_HOST": "127.0.0.1",
    "JWT_SECRET": SECRET,
    "RATE_LIMIT_MESSAGES_PER_MINUTE": "1000000",
    "MAX_CONNECTIONS_PER_USER": "1000",
    "MARKET_SOURCE": "amqp",
}
MEBIBYTE = 1024 * 1024


class ReplicatedSystem:
    """The running system and its processes by name: `gateway-1`, `chat_service-2`, …

    `control` runs `rabbitmqctl` and returns its output.
    """

    def __init__(self, local: LocalSystem, control: Callable[..., str]) -> None:
        self.local = local
        self._control = control
        self.url = local.entries()["GATEWAY_URL"]
        self.names = [f"{service}-{number}" for service in SERVICES for number in range(1, REPLICAS + 1)]

    def pid(self, name: str) -> int | None:
        """Return the current process id, or None during a restart."""
        entries = self.local.entries()
        pid = int(entries.get(f"{name.upper().replace('-', '_')}_PID", 0))
        mark = f"{MARK_VARIABLE}={self.local.directory.resolve()}".encode()
        with suppress(OSError):  # the id may belong to another process by now
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
        return None

    def admin_url(self, name: str) -> str:
        """Return the address of a process's admin server."""
        return self.local.entries()[f"{name.upper().replace('-', '_')}_ADMIN_URL"]

    def is_ready(self, name: str) -> bool:
        """Return True if a process reports ready. Blocks for up to 2 s."""
        try:
            with urllib.request.urlopen(f"{self.admin_url(name)}/readyz", timeout=2.0) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def signal(self, name: str, number: signal.Signals) -> int | None:
        """Send a signal to a process and return its id, or None if it does not run."""
        pid = self.pid(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def thaw(self) -> None:
        """Continue every process."""
        for name in self.names:
            self.signal(name, signal.SIGCONT)

    def memory_mib(self) -> dict[str, int]:
        """Return the resident memory of every running process."""
        pids = {name: self.pid(name) for name in self.names}
        return {name: memory_bytes(pid) // MEBIBYTE for name, pid in pids.items() if pid is not None}

    async def queues(self) -> dict[str, int]:
        """Return the broker's queues and their depths."""
        listed = await asyncio.to_thread(self._control, "list_queues", "name", "messages")
        rows = [line.split("\t") for line in listed.splitlines() if "\t" in line]
        return {name: int(count) for name, count in rows if count.isdecimal()}


class Patient(ReplicatedSystem):
    """The system of a chaos run, with the broker and the database that it harms."""

    def __init__(self, local: LocalSystem, infrastructure: Infrastructure) -> None:
        super().__init__(local, infrastructure.broker.control)
        self.infrastructure = infrastructure


@contextmanager
def patient(
    directory: Path, infrastructure: Infrastructure, settings: Mapping[str, str] | None = None
) -> Iterator[Patient]:
    """Yield the whole system on this broker and database."""
    environment = {
        **SETTINGS,
        "GATEWAY_PORT": str(free_port()),
        "AMQP_URL": infrastructure.amqp_url,
        "MONGODB_URI": infrastructure.mongodb_uri,
        "MONGODB_DATABASE": new_id(Prefix.COMMAND),
        **(settings or {}),
    }
    with LocalSystem(directory, environment) as local:
        running = Patient(local, infrastructure)
        try:
            yield running
        finally:
            running.thaw()
