"""A private RabbitMQ node on loopback ports, with its own epmd, in one directory."""

import os
import re
import secrets
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

from deploy.local.amqp_probe import accepts_logins
from deploy.local.command import SYSTEM_PATH, CommandLine
from deploy.local.ports import LOOPBACK, KeptPorts

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CONTROL = SERVER.with_name("rabbitmqctl")
NODE_NAME = "realtime@localhost"

_CONFIGURATION = """\
# Overwritten at every start.
loopback_users.guest = true
heartbeat = 30
vm_memory_high_watermark.absolute = 1GiB
disk_free_limit.absolute = 200MB
raft.wal_max_size_bytes = 67108864
log.console = true
log.console.level = warning
log.console.use_colors = off
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 2
"""
_PROBLEM = re.compile(r"\[(warning|error|critical|alert|emergency)\]")


@dataclass(frozen=True, slots=True)
class BrokerNode:
    """Location and commands of one node. Call `prepare` first; then start epmd, then the server."""

    directory: Path
    amqp_port: int
    distribution_port: int
    epmd_port: int
    name: str = NODE_NAME

    @classmethod
    def on_kept_ports(cls, directory: Path, ports: KeptPorts) -> "BrokerNode":
        """Return the node in `directory`, on its previous ports if they are free."""
        return cls(directory, ports.take("amqp"), ports.take("erlang-distribution"), ports.take("epmd"))

    @property
    def url(self) -> str:
        """Return the address for AMQP clients on this machine."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.amqp_port}/"

    def prepare(self) -> None:
        """Write the node's files and keep existing data."""
        for part in ("home", "log", "data"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        (self.directory / "rabbitmq.conf").write_text(_CONFIGURATION)
        (self.directory / "enabled_plugins").write_text("[].\n")
        cookie = self.directory / "home" / ".erlang.cookie"
        if not cookie.exists():
            with os.fdopen(os.open(cookie, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))

    def epmd_command(self) -> CommandLine:
        """Return the command of the port mapper.

        It runs in the foreground, so that it ends with the supervisor, and serves no other Erlang node.
        """
        return CommandLine(("/usr/bin/epmd",), self._erlang_environment(), self.directory)

    def server_command(self) -> CommandLine:
        """Return the command of the server.

        The process is the Erlang VM itself, so that a signal does not end a shell in between.
        """
        environment = self._erlang_environment() | {
            "RABBITMQ_ALLOW_INPUT": "1",  # makes the start script exec; -noinput below reverts its side effects
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S {_schedulers()} -noinput +B i",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.amqp_port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": self._data(),
        }
        places = {
            "RABBITMQ_LOG_BASE": "log",
            "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": "conf.d",
            "RABBITMQ_ADVANCED_CONFIG_FILE": "advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": "generated",
            "RABBITMQ_SCHEMA_DIR": "schema",
            "RABBITMQ_PID_FILE": "pid",
        }
        environment |= {name: str(self.directory.resolve() / place) for name, place in places.items()}
        return CommandLine((str(SERVER),), environment, self.directory)

    def control_command(self, *arguments: str) -> CommandLine:
        """Return the `rabbitmqctl` command for this node."""
        environment = self._erlang_environment() | {"RABBITMQ_CONF_ENV_FILE": "/dev/null"}
        return CommandLine((str(CONTROL), "--node", self.name, "--quiet", *arguments), environment, self.directory)

    def epmd_is_ready(self) -> bool:
        """Return whether the port mapper answers a names request. Blocks for up to 1 s."""
        try:
            with socket.create_connection((LOOPBACK, self.epmd_port), 1.0) as connection:
                connection.sendall(b"\x00\x01n")
                return bool(connection.recv(4))
        except OSError:
            return False

    def is_ready(self) -> bool:
        """Return whether the node accepts logins. Blocks for up to 2 s."""
        return accepts_logins(self.amqp_port)

    def _data(self) -> str:
        """Return the data directory without spaces, because RabbitMQ passes it to `df` unquoted."""
        place = str(self.directory.resolve() / "data")
        return place if shlex.quote(place) == place else "/proc/self/cwd/data"

    def _erlang_environment(self) -> dict[str, str]:
        return {
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.directory.resolve() / "home"),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }


def is_problem(line: str) -> bool:
    """Return whether a line of the server's output is a warning or worse, not part of its banner."""
    return _PROBLEM.search(line) is not None


def _schedulers() -> int:
    return min(2, os.cpu_count() or 1)
