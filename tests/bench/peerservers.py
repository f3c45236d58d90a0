"""Comparable servers, each in its smallest honest form, installed under build/bench/peers.

Nothing is installed system-wide: npm packages go into that directory, and Debian packages are unpacked there.
"""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.local.command import CommandLine
from tests.bench.client import Dialect
from tests.bench.dialects import Nats, Plain, SocketIo
from tests.bench.report import DIRECTORY
from tests.support.server_process import ServerProcess
from tests.support.services import free_port

INSTALL_TIMEOUT_S = 180.0
START_TIMEOUT_S = 15.0
SCRIPTS = Path(__file__).parent / "peers"
PEERS = DIRECTORY / "peers"


class Absent(Exception):
    """The server cannot be installed here; the text states the reason."""


@dataclass(frozen=True)
class PeerProgram:
    """A program and its packages. `command` takes its directory and port and returns the command to run."""

    name: str
    npm: tuple[str, ...]
    debian: tuple[str, ...]
    command: Callable[[Path, int], list[str]]


@dataclass(frozen=True)
class PeerServer(PeerProgram):
    """A hub, and how its clients speak."""

    listener: Callable[[], Dialect]
    publisher: Callable[[], Dialect]
    wrap: Callable[[bytes], bytes]
    counts: bool = False  # it chooses its own framing


@dataclass(frozen=True)
class RunningPeer:
    """A server that accepts connections."""

    peer: PeerProgram
    port: int
    process: ServerProcess

    @property
    def pids(self) -> dict[str, int]:
        """Return the server's processes; nginx works in a child."""
        from tests.bench.processes import children

        pids = [self.process.pid, *children(self.process.pid)]
        return {f"{self.peer.name}{'' if not number else f' {number}'}": pid for number, pid in enumerate(pids)}


def node_command(script: str, *arguments: str) -> Callable[[Path, int], list[str]]:
    """Return the command of a script of this package, which gets its port and then `arguments`."""

    def command(directory: Path, port: int) -> list[str]:
        shutil.copy(SCRIPTS / script, directory / script)  # node resolves packages beside the script
        return ["node", script, str(port), *arguments]

    return command


def _nats(directory: Path, port: int) -> list[str]:
    config = (SCRIPTS / "nats.conf").read_text().replace("PORT", str(port))
    (directory / "nats.conf").write_text(config)
    return [str(_binary(directory, "nats-server")), "-c", "nats.conf"]


def _nchan(directory: Path, port: int) -> list[str]:
    module = next(directory.rglob("ngx_nchan_module.so"), None)
    if module is None:
        raise Absent("the package holds no ngx_nchan_module.so")
    config = (SCRIPTS / "nchan.conf").read_text()
    for name, value in (("DIRECTORY", directory), ("MODULES", module.parent), ("PORT", port)):
        config = config.replace(name, str(value))
    (directory / "nchan.conf").write_text(config)
    return [str(_binary(directory, "nginx")), "-p", str(directory), "-c", str(directory / "nchan.conf")]


def _binary(directory: Path, name: str) -> Path:
    found = next(
        (path for path in directory.rglob(name) if path.is_file() and path.parent.name in ("bin", "sbin")), None
    )
    if found is None:
        raise Absent(f"the package holds no {name}")
    return found


PEERS_BY_NAME = {
    peer.name: peer
    for peer in (
        PeerServer(
            "uwebsockets",
            ("uwebsockets",),
            (),
            node_command("uws.js"),
            lambda: Plain("/sub"),
            lambda: Plain("/pub"),
            Plain.wrap,
        ),
        PeerServer("ws", ("ws",), (), node_command("ws.js"), lambda: Plain("/sub"), lambda: Plain("/pub"), Plain.wrap),
        PeerServer("socketio", ("socket.io",), (), node_command("socketio.js"), SocketIo, SocketIo, SocketIo.wrap),
        PeerServer("nats", (), ("nats-server",), _nats, Nats, lambda: Nats(listens=False), Nats.wrap, counts=True),
        PeerServer(
            "nchan",
            (),
            ("nginx", "nginx-common", "libnginx-mod-nchan"),
            _nchan,
            lambda: Plain("/sub"),
            lambda: Plain("/pub"),
            Plain.wrap,
        ),
    )
}


def install(peer: PeerProgram) -> Path:
    """Install into the server's own directory unless done. Raises Absent."""
    directory = PEERS / peer.name
    done = directory / ".installed"
    if done.exists():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    if peer.npm:
        _run(["npm", "install", "--prefix", str(directory), "--no-audit", "--no-fund", *peer.npm], directory)
    if peer.debian:
        _run(["apt-get", "download", *peer.debian], directory)
        for package in directory.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(directory)], directory)
    done.touch()
    return directory


def _run(command: list[str], directory: Path) -> None:
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
    except FileNotFoundError as error:
        raise Absent(f"{command[0]} is not there") from error
    except subprocess.SubprocessError as error:
        output = getattr(error, "stderr", b"") or b""
        raise Absent(f"{' '.join(command[:2])} failed: {output.decode(errors='replace').strip()[-200:]}") from error


@contextmanager
def serving(peer: PeerProgram) -> Iterator[RunningPeer]:
    """Yield the running server. Raises Absent."""
    directory = install(peer)
    port = free_port()
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory)}
    process = ServerProcess(
        CommandLine(tuple(peer.command(directory, port)), environment, directory), directory / "out.txt"
    )
    process.start()
    try:
        process.wait_until(lambda: _accepts(port), START_TIMEOUT_S)
    except (RuntimeError, TimeoutError) as error:
        process.kill()
        raise Absent(f"it does not start: {str(error)[-300:]}") from error
    try:
        yield RunningPeer(peer, port, process)
    finally:
        process.stop(5.0)


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
