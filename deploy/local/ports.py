"""Free TCP ports, kept from one run to the next."""

import json
import random
import socket
from collections.abc import Collection
from pathlib import Path

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - only ever probed

_LOWEST_PORT = 10_240
_MIN_CHOICE = 1_000
_RANDOM = random.SystemRandom()


def is_free(port: int, host: str = EVERY_ADDRESS) -> bool:
    """Return whether a server could listen on `port`. A connection in TIME_WAIT does not block a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def pick(excluding: Collection[int] = ()) -> int:
    """Return a port that is free on every address and outside the ephemeral range if possible.

    An outgoing connection can take an ephemeral port while its server restarts. Only if no port below that range is
    free does the kernel choose.
    """
    first_ephemeral = _first_ephemeral_port()
    if first_ephemeral - _LOWEST_PORT >= _MIN_CHOICE:
        for _ in range(200):
            port = _RANDOM.randrange(_LOWEST_PORT, first_ephemeral)
            if port not in excluding and is_free(port):
                return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _first_ephemeral_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


class KeptPorts:
    """Named ports in a JSON file. A name keeps its port for as long as that port is free."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = _read(path)

    def take(self, name: str) -> int:
        """Return the port kept under `name` if it is free, otherwise a new one, and keep it."""
        kept = self._kept.get(name)
        if kept is not None and is_free(kept):
            return kept
        port = pick(excluding=self._kept.values())
        self._kept[name] = port
        self._path.write_text(json.dumps(self._kept, indent=1) + "\n")
        return port


def _read(path: Path) -> dict[str, int]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: port for name, port in content.items() if isinstance(port, int) and 0 < port < 65_536}
