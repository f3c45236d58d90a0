"""The system under test: two of each service, with a broker, or a cluster of them, and a database that can be killed.

The services reach the database through a proxy (`database`), and read their wall clocks through `skewed_clock`.
"""

import asyncio
import os
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from deploy.local.command import CommandLine
from deploy.local.leftovers import MARK_VARIABLE
from deploy.local.settings import PROJECT
from shared.ids import Prefix, new_id
from tests.bench.processes import memory_bytes
from tests.chaos.database import DatabaseFront
from tests.chaos.plan import REPLICAS, SERVICES
from tests.support.broker_cluster import BrokerCluster
from tests.support.infrastructure import Database, Infrastructure
from tests.support.limits import HIGH_LIMITS
from tests.support.local_system import LocalSystem
from tests.support.server_process import ServerProcess
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
SKEWED_CLOCK = PROJECT / "tests" / "support" / "skewed_clock"
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")


class ClusterInfrastructure(Infrastructure):
    """A three-node broker cluster and a database. `broker` is the first node."""

    def __init__(self, directory: Path) -> None:
        self.cluster = BrokerCluster(directory / "rabbitmq")
        self.broker = self.cluster.members[0]
        self.database = Database(directory / "database")

    @property
    def amqp_url(self) -> str:
        """Return the address with all hosts, for our services."""
        return self.cluster.amqp_url

    def __enter__(self) -> Self:
        try:
            self.cluster.start()
            self.database.start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop both."""
        self.database.stop()
        self.cluster.stop()


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
        """Return whether a process reports ready. Blocks for up to 2 s."""
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

    def __init__(
        self,
        local: LocalSystem,
        infrastructure: Infrastructure,
        database_front: DatabaseFront,
        environment: Mapping[str, str],
    ) -> None:
        self.infrastructure = infrastructure
        self.cluster = infrastructure.cluster if isinstance(infrastructure, ClusterInfrastructure) else None
        self.control = infrastructure.broker.control if self.cluster is None else self.cluster.control
        super().__init__(local, self.control)
        self.database_front = database_front
        self._environment = environment

    @property
    def broker_urls(self) -> list[str]:
        """Return the address of each node of the broker."""
        return [self.infrastructure.broker.url] if self.cluster is None else [one.url for one in self.cluster.members]

    def skew_clock(self, name: str, skew_ms: int) -> None:
        """Set the offset by which a process's wall clock is ahead, from its next start on."""
        admin_port = self.admin_url(name).rpartition(":")[2]
        (Path(self._environment["SKEW_DIR"]) / admin_port).write_text(str(skew_ms))

    def further_chat_service(self) -> ServerProcess:
        """Return one more replica, which is not started and which no supervisor restarts."""
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own = {"ADMIN_PORT": str(free_port()), "LOG_FORMAT": "console"}
        environment = {**passed_on, **HIGH_LIMITS, **self._environment, **own}
        command = CommandLine((sys.executable, "-m", "chat_service"), environment, PROJECT)
        return ServerProcess(command, self.local.directory / "further.out")


@contextmanager
def patient(
    directory: Path, infrastructure: Infrastructure, settings: Mapping[str, str] | None = None
) -> Iterator[Patient]:
    """Yield the whole system on this broker and database."""
    skew_directory = directory / "skew"
    skew_directory.mkdir(parents=True)
    with DatabaseFront(infrastructure.mongodb_uri) as database_front:
        environment = {
            **SETTINGS,
            "GATEWAY_PORT": str(free_port()),
            "AMQP_URL": infrastructure.amqp_url,
            "MONGODB_URI": database_front.uri,
            "MONGODB_DATABASE": new_id(Prefix.COMMAND),
            "PYTHONPATH": str(SKEWED_CLOCK),
            "SKEW_DIR": str(skew_directory),
            **(settings or {}),
        }
        with LocalSystem(directory, environment) as local:
            running = Patient(local, infrastructure, database_front, environment)
            try:
                yield running
            finally:
                running.thaw()
