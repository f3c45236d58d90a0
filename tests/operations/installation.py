"""An installation whose services run from chosen releases: broker, database, two workers of each kind, HAProxy.

    with Installation(directory, release) as site:
        site.start_workers()
        site.roll("chat_service", other)

Gateways are those of a `Stage`; `gateway` makes them. All calls block.
"""

import signal
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local.command import CommandLine
from deploy.local.ports import KeptPorts
from tests.support.balancer import START_TIMEOUT_S, STOP_TIMEOUT_S, BalancedGateway, Balancer
from tests.support.infrastructure import Infrastructure
from tests.support.limits import HIGH_LIMITS
from tests.support.release import Release
from tests.support.server_process import ServerProcess
from tests.support.startable import Startable
from tests.support.tokens import SECRET

REPLICAS = 2
WORKERS = ("chat_service", "notifier", "market_feed")  # in the order of an upgrade
DATABASE = "realtime"
SYMBOLS = ("EUR/USD", "XAU/USD")
PROBE_TIMEOUT_S = 2.0
RATES = {"JWT_SECRET": SECRET, "RATE_LIMIT_MESSAGES_PER_MINUTE": "100000", **HIGH_LIMITS}


class Worker:
    """A replica of a worker. It keeps its settings over restarts and changes of release."""

    def __init__(self, name: str, port: int, environment: dict[str, str], directory: Path) -> None:
        self.name = name
        self.kind = name.rpartition("-")[0]
        self._url = f"http://127.0.0.1:{port}/readyz"
        self._environment = {**environment, "ADMIN_HOST": "127.0.0.1", "ADMIN_PORT": str(port)}
        self._output = directory / f"{name}.out"
        self.process: ServerProcess | None = None

    def begin(self, release: Release) -> None:
        """Start a release without waiting until it is ready."""
        command = CommandLine((str(release.python), "-m", self.kind), self._environment, release.tree)
        self.process = ServerProcess(command, self._output)
        self.process.start()

    def wait_ready(self) -> None:
        """Return once ready; raise with the end of the output otherwise."""
        assert self.process is not None
        self.process.wait_until(self._is_ready, START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop as a scheduler does."""
        if self.process is not None:
            self.process.stop(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill with SIGKILL."""
        if self.process is not None and self.process.is_running():
            self.process.signal(signal.SIGKILL)
            self.process.wait(STOP_TIMEOUT_S)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._url, timeout=PROBE_TIMEOUT_S) as response:
                return bool(response.status == 200)
        except OSError:
            return False


class Installation(Startable):
    """Broker, database, load balancer, and two replicas of each worker."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.infrastructure = Infrastructure(directory)
        self.environment = {
            "AMQP_URL": self.infrastructure.amqp_url,
            "MONGODB_URI": self.infrastructure.mongodb_uri,
            "MONGODB_DATABASE": DATABASE,
            "MARKET_SOURCE": "sim",
            "MARKET_SYMBOLS": ",".join(SYMBOLS),
            "MARKET_SIM_TICKS_PER_S": "20",
            "LOG_FORMAT": "json",
            **RATES,
        }
        self.balancer = Balancer(directory)
        ports = KeptPorts(directory / "worker-ports.json")
        names = [f"{kind}-{number}" for kind in WORKERS for number in range(1, REPLICAS + 1)]
        self._workers = [Worker(name, ports.take(name), self.environment, directory) for name in names]

    def workers(self, *kinds: str) -> list[Worker]:
        """Return the replicas of these kinds, in the order of the kinds; of all without any."""
        return [worker for kind in kinds or WORKERS for worker in self._workers if worker.kind == kind]

    def start_workers(self, release: Release, *kinds: str) -> None:
        """Start all replicas of these kinds and return once they are ready."""
        begin(self.workers(*kinds), release)

    def gateway(self, number: int, release: Release) -> BalancedGateway:
        """Return a gateway of a release, which is not started yet."""
        return BalancedGateway(self._directory, self.balancer, number, self.environment, release)

    def start(self) -> None:
        """Start the servers and the load balancer, no service."""
        self.infrastructure.start()
        self.balancer.__enter__()

    def stop(self) -> None:
        """Stop everything but the gateways."""
        self.balancer.__exit__(None, None, None)
        for worker in self._workers:
            worker.kill()
        self.infrastructure.stop()


def begin(workers: Iterable[Worker], release: Release) -> None:
    """Start replicas side by side and return once they are ready."""
    started = list(workers)
    for worker in started:
        worker.begin(release)
    for worker in started:
        worker.wait_ready()


def stop_all(workers: Iterable[Worker]) -> None:
    """Stop replicas side by side."""
    stopping = list(workers)
    with ThreadPoolExecutor(len(stopping)) as threads:
        list(threads.map(Worker.stop, stopping))


def roll(workers: Iterable[Worker], release: Release) -> None:
    """Replace one replica after the other by one of a release."""
    for worker in workers:
        worker.stop()
        worker.begin(release)
        worker.wait_ready()
