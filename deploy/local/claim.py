"""Exclusive use of the directory and of the gateways' port by one run."""

import errno
import fcntl
import os
import socket
from pathlib import Path


class AlreadyInUse(Exception):
    """Another process uses the resource. The message names the process or a remedy.

    `is_in_use` distinguishes a port that is in use from one that is inaccessible for another reason.
    """

    def __init__(self, hint: str, *, is_in_use: bool = False) -> None:
        super().__init__(hint)
        self.is_in_use = is_in_use


def claim_directory(directory: Path) -> int:
    """Create `directory` and lock it until this process ends, even by SIGKILL. Return the lock's descriptor."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise AlreadyInUse(f"cannot write to {directory} ({error.strerror}): choose another with LOCAL_DIR") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise AlreadyInUse(
            f"it runs already, as process {holder}: stop it with Ctrl-C there or `kill {holder}`"
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
        raise AlreadyInUse(hint, is_in_use=error.errno == errno.EADDRINUSE) from error
    return claim
