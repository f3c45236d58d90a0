"""A broker and a database for the tests, on free ports, in a directory chosen by the caller.

    with Infrastructure(directory) as infrastructure:
        infrastructure.amqp_url, infrastructure.mongodb_uri
        infrastructure.broker.kill()
        infrastructure.broker.start()

AMQP_URL and MONGODB_URI are ignored. Everything ends with the block, and with the test process even if that is killed.
"""

import os
import struct
import subprocess
from abc import abstractmethod
from pathlib import Path

from deploy.local.broker import BrokerNode
from deploy.local.database import DatabaseServer, find_mongod
from deploy.local.ports import KeptPorts
from tests.support.server_process import ServerProcess
from tests.support.startable import Startable
from tests.support.waiting import block_until

START_TIMEOUT_S = 150.0
STOP_TIMEOUT_S = 20.0
QUEUE_NAMES_TIMEOUT_S = 10.0
CONTROL_TIMEOUT_S = 30.0


class ManagedServer(Startable):
    """A server that keeps its data and ports over `stop`, `kill` and `restart`.

    As a context manager, it is started and stopped.
    """

    process: ServerProcess

    @abstractmethod
    def begin(self) -> None:
        """Start without waiting until ready."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether a client would be served. Blocks for up to 2 s."""

    @property
    def pid(self) -> int:
        """Return the process id of the server, also after it ended."""
        return self.process.pid

    def start(self) -> None:
        """Start and return once ready. Raises with the end of the server's output otherwise."""
        self.begin()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return once ready. Raises with the end of the server's output otherwise."""
        self.process.wait_until(self.is_ready, START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop the server cleanly."""
        self.process.stop(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self.process.kill()

    def restart(self) -> None:
        """Stop the server cleanly and start it again."""
        self.stop()
        self.start()


class Broker(ManagedServer):
    """A private RabbitMQ node; it takes some 6 s to start."""

    def __init__(self, directory: Path, node: BrokerNode | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._node = node or BrokerNode.on_kept_ports(directory, KeptPorts(directory / "ports.json"))
        self._epmd = ServerProcess(self._node.epmd_command(), directory / "epmd.out")
        self.process = ServerProcess(self._node.server_command(), directory / "server.out")

    @property
    def url(self) -> str:
        """Return the address for AMQP clients."""
        return self._node.url

    def begin(self) -> None:
        """Start without waiting until ready."""
        self._node.prepare()
        self.configure(self._directory / "rabbitmq.conf")
        if not self._epmd.is_running():
            self._epmd.start()
        self.process.start()

    def configure(self, file: Path) -> None:
        """Add to the configuration. This node needs nothing more."""

    def is_ready(self) -> bool:
        """Return whether a client would be served. Blocks for up to 2 s."""
        return self._node.is_ready()

    def kill(self) -> None:
        """Kill the node with SIGKILL, but not within a second of the declaration of a quorum queue.

        RabbitMQ 3.10 writes the names of new quorum queues to disk up to a second late. A queue whose name is lost
        never has a leader again, a bug that would make every test with an early kill flaky.
        """
        block_until(self._queue_names_are_on_disk, QUEUE_NAMES_TIMEOUT_S)
        super().kill()

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` and return its output. Takes a second or two; raises CalledProcessError."""
        command = self._node.control_command(*arguments)
        ended = subprocess.run(
            command.arguments,
            env=command.environment,
            cwd=command.directory,
            capture_output=True,
            text=True,
            check=True,
            timeout=CONTROL_TIMEOUT_S,
        )
        return ended.stdout

    def _queue_names_are_on_disk(self) -> bool:
        """Return whether the DETS file of the names is marked as written.

        Source: https://www.erlang.org/doc/man/dets, auto_save.
        """
        names = next(self._directory.glob("data/*/quorum/*/names.dets"), None)
        if names is None or not self.process.is_running():
            return True
        _, _, written = struct.unpack("!III", names.read_bytes()[:12])
        return bool(written == 1)

    def stop(self) -> None:
        """Stop the node and its epmd cleanly."""
        super().stop()
        self._epmd.stop(STOP_TIMEOUT_S)


class Database(ManagedServer):
    """A private database server; it takes less than 1 s to start."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        port = KeptPorts(directory / "ports.json").take("mongodb")
        self._server = DatabaseServer(directory, port, find_mongod(os.environ.get("PATH", "")))
        self.process = ServerProcess(self._server.command(), directory / "server.out")

    @property
    def uri(self) -> str:
        """Return the address for MongoDB clients."""
        return self._server.uri

    @property
    def data(self) -> Path:
        """Return the directory of the data files."""
        return self._server.data

    def begin(self) -> None:
        """Start without waiting until ready."""
        self._server.prepare()
        self.process.start()

    def is_ready(self) -> bool:
        """Return whether a client would be served. Blocks for up to 2 s."""
        return self._server.is_ready()


class Infrastructure(Startable):
    """A broker and a database, started side by side."""

    def __init__(self, directory: Path) -> None:
        self.broker = Broker(directory / "rabbitmq")
        self.database = Database(directory / "database")

    @property
    def amqp_url(self) -> str:
        """Return the address for AMQP clients."""
        return self.broker.url

    @property
    def mongodb_uri(self) -> str:
        """Return the address for MongoDB clients."""
        return self.database.uri

    def start(self) -> None:
        """Start both, and return once they are ready."""
        self.broker.begin()
        self.database.begin()
        self.broker.wait_until_ready()
        self.database.wait_until_ready()

    def stop(self) -> None:
        """Stop both."""
        self.database.stop()
        self.broker.stop()
