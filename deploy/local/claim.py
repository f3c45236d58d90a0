"""Exclusive use of the directory and of the gateways' port by one run."""

import errno
import fcntl
import os
import socket
from pathlib import Path


class CannotClaim(Exception):
    """The directory or the port cannot be used. The message names a remedy.

    `is_taken`: another process listens on the port.
    """

    def __init__(self, hint: str, *, is_taken: bool = False) -> None:
        super().__init__(hint)
        self.is_taken = is_taken


def claim_directory(directory: Path) -> int:
    """Create `directory` and lock it until this process ends, even by SIGKILL. Return the lock's descriptor."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotClaim(f"cannot write to {directory} ({error.strerror}): choose another with LOCAL_DIR") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise CannotClaim(
            f"already running as process {holder}: stop it with Ctrl-C in its terminal, or with `kill {holder}`"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def claim_port(host: str, port: int) -> socket.socket:
    """Reserve host:port (0: a free port) for this run, so that it stays reserved while the gateways restart.

    The gateways share the port by SO_REUSEPORT. The returned socket does not listen, so it gets no connections.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
        claim = socket.socket(family)
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        claim.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        hint = f"cannot listen on {host} port {port} ({reason}): choose another with GATEWAY_PORT"
        raise CannotClaim(hint, is_taken=error.errno == errno.EADDRINUSE) from error
    return claim
