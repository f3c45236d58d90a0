"""HAProxy with the configuration of deploy/, in front of gateway processes on their own loopback addresses.

    with Balancer(directory) as balancer:
        gateway = BalancedGateway(directory, balancer, number=1, environment)
        gateway.start()
        balancer.announce(gateway)
        balancer.url

HAProxy discovers the gateways as in production: by one DNS name that resolves to all of them.
"""

import os
import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from deploy.local.command import SYSTEM_PATH, CommandLine
from deploy.local.ports import KeptPorts
from deploy.local.settings import PROJECT
from tests.support.limits import HIGH_LIMITS
from tests.support.name_server import NameServer
from tests.support.release import TODAY, Release
from tests.support.scrape import samples, value
from tests.support.server_process import ServerProcess

HAPROXY = shutil.which("haproxy", path=SYSTEM_PATH)
CONFIGURATION = PROJECT / "deploy" / "haproxy" / "haproxy.cfg"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
MAXCONN = 4000
PROBE_TIMEOUT_S = 2.0

needs_haproxy = pytest.mark.skipif(
    HAPROXY is None and os.geteuid() != 0, reason="haproxy is missing; to install it: sudo make tools"
)


class Balancer:
    """HAProxy and its name server. A context manager starts and stops both."""

    def __init__(self, directory: Path) -> None:
        ports = KeptPorts(directory / "balancer-ports.json")
        port, self._metrics_port = ports.take("clients"), ports.take("metrics")
        self.gateway_port, self.admin_port = ports.take("gateway"), ports.take("gateway admin")
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        self._names = NameServer()
        environment = {
            "BIND": f"127.0.0.1:{port}",
            "METRICS_BIND": f"127.0.0.1:{self._metrics_port}",
            "GATEWAY": f"gateway.test:{self.gateway_port}",
            "GATEWAY_ADMIN_PORT": str(self.admin_port),
            "DNS": f"127.0.0.1:{self._names.port}",
            "MAXCONN": str(MAXCONN),
        }
        command = CommandLine((HAPROXY or "haproxy", "-db", "-f", str(CONFIGURATION)), environment, PROJECT)
        self.process = ServerProcess(command, directory / "haproxy.out")

    def announce(self, *gateways: "BalancedGateway") -> None:
        """Make the name resolve to exactly these gateways."""
        self._names.addresses = [gateway.host for gateway in gateways]

    def gateways_up(self) -> int:
        """Return the number of gateways that accept new sockets."""
        return int(value(self.metrics_url, "haproxy_server_status", proxy="gateways", state="UP"))

    def _answers(self) -> bool:
        try:
            return bool(samples(self.metrics_url))
        except OSError:
            return False

    def __enter__(self) -> Self:
        self._names.__enter__()
        try:
            self.process.start()
            self.process.wait_until(self._answers, START_TIMEOUT_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()  # SIGTERM would wait for its clients
        self._names.__exit__(kind, error, trace)


class BalancedGateway(ServerProcess):
    """`python -m gateway` of a release, on its own address and on the ports that the load balancer expects."""

    def __init__(
        self,
        directory: Path,
        balancer: Balancer,
        number: int,
        environment: Mapping[str, str],
        release: Release = TODAY,
    ) -> None:
        self.name = f"gateway-{number}"
        self.host = f"127.0.7.{number}"
        self.url = f"http://{self.host}:{balancer.gateway_port}"
        self.admin_url = f"http://{self.host}:{balancer.admin_port}"
        listens = {
            "GATEWAY_HOST": self.host,
            "GATEWAY_PORT": str(balancer.gateway_port),
            "ADMIN_HOST": self.host,
            "ADMIN_PORT": str(balancer.admin_port),
        }
        everything = {**HIGH_LIMITS, **environment, **listens}
        command = CommandLine((str(release.python), "-m", "gateway"), everything, release.tree)
        super().__init__(command, directory / f"{self.name}.out")

    def is_ready(self) -> bool:
        """Return whether the gateway reports ready."""
        try:
            with urllib.request.urlopen(f"{self.admin_url}/readyz", timeout=PROBE_TIMEOUT_S) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def connections(self) -> int:
        """Return the gateway's number of sockets."""
        return int(value(f"{self.admin_url}/metrics", "gateway_connections"))
