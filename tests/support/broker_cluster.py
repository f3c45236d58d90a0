"""A three-node RabbitMQ cluster for the tests, on free ports, in a directory chosen by the caller.

    with BrokerCluster(directory) as cluster:
        cluster.amqp_url                # all hosts: amqp://guest:guest@127.0.0.1:p1,127.0.0.1:p2,127.0.0.1:p3/
        cluster.members[0].kill()       # SIGKILL
        cluster.members[0].start()
        cluster.members[1].freeze()     # SIGSTOP, until `thaw`
        cluster.rolling_restart()
        cluster.heal()                  # start, thaw or restart nodes until the cluster is whole

On a partition the minority pauses, and a node drops silent peers after `net_ticktime` of 5 s, as in production.
Everything ends with the block, and with the test process even if that is killed. All calls block.

A node that was frozen for longer sees its peers as soon as it continues, so RabbitMQ 3.10 does not pause it: it reports
ready but is isolated from its cluster until it is restarted. `heal` does that, as an operator would.
"""

import json
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired

from deploy.local.broker import BrokerNode
from deploy.local.ports import LOOPBACK, KeptPorts
from tests.support.infrastructure import START_TIMEOUT_S, STOP_TIMEOUT_S, Broker
from tests.support.server_process import ServerProcess
from tests.support.startable import Startable

NODES = 3
NET_TICKTIME_S = 5
WHOLE_TIMEOUT_S = 90.0
HEAL_TIMEOUT_S = 15.0
LOOK_INTERVAL_S = 0.5  # each poll starts an Erlang VM
EPMD_TIMEOUT_S = 10.0

_CONFIGURATION = f"""\
net_ticktime = {NET_TICKTIME_S}
cluster_partition_handling = pause_minority
cluster_formation.peer_discovery_backend = classic_config
disk_free_limit.absolute = 100MB
raft.wal_max_size_bytes = 33554432
"""


class ClusterMember(Broker):
    """One node of a cluster. It keeps its data and ports over `stop`, `kill` and `restart`."""

    def __init__(self, directory: Path, node: BrokerNode, cookie: str, peers: tuple[str, ...]) -> None:
        super().__init__(directory, node)
        self.name = node.name
        self.is_frozen = False
        self.port = node.amqp_port
        self._cookie = cookie
        self._peers = peers

    def begin(self) -> None:
        """Start without waiting until ready. The node joins its peers by itself."""
        self._write_cookie()
        self._node.prepare()
        configuration = self._directory / "rabbitmq.conf"
        peers = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {name}\n" for number, name in enumerate(self._peers, 1)
        )
        configuration.write_text(f"{configuration.read_text()}{_CONFIGURATION}{peers}")
        self.process.start()

    def stop(self) -> None:
        """Stop the node cleanly; its peers and the cluster's epmd keep running."""
        self.thaw()
        self.process.stop(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the node with SIGKILL."""
        self.thaw()
        super().kill()

    def kill_now(self) -> None:
        """Kill the node without regard to its data. No effect if it has ended."""
        self.process.kill()

    def freeze(self) -> None:
        """Stop the node's processes with SIGSTOP: its connections stay open and silent."""
        self.process.signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        """Continue a frozen node."""
        if self.is_frozen:
            self.process.signal(signal.SIGCONT)
            self.is_frozen = False

    def peers_running(self) -> int:
        """Return the number of running nodes that this one sees, itself included; 0 without an answer."""
        try:
            return int(self.control("eval", "length(rabbit_nodes:all_running())."))
        except (CalledProcessError, TimeoutExpired):
            return 0

    def _write_cookie(self) -> None:
        home = self._directory / "home"
        home.mkdir(parents=True, exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(0o600)
            cookie.write_text(self._cookie)


class BrokerCluster(Startable):
    """Three nodes and their epmd."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        ports = KeptPorts(directory / "ports.json")
        epmd_port, cookie = ports.take("epmd"), secrets.token_hex(32)
        names = tuple(f"node{number}@localhost" for number in range(1, NODES + 1))
        self.members: list[ClusterMember] = []
        for name in names:
            home = directory / name.partition("@")[0]
            node = BrokerNode(home, ports.take(f"{name} amqp"), ports.take(f"{name} distribution"), epmd_port, name)
            self.members.append(ClusterMember(home, node, cookie, names))
            self._epmd_node = node
        self._epmd = ServerProcess(self._epmd_node.epmd_command(), directory / "epmd.out")

    @property
    def amqp_url(self) -> str:
        """Return an address with all hosts, in the form of AMQP_URL."""
        hosts = ",".join(f"{LOOPBACK}:{member.port}" for member in self.members)
        return f"amqp://guest:guest@{hosts}/"

    def start(self) -> None:
        """Start every node and return once the cluster is whole."""
        self._epmd.start()
        self._epmd.wait_until(self._epmd_node.epmd_is_ready, EPMD_TIMEOUT_S)
        for member in self.members:
            member.begin()
        for member in self.members:
            member.process.wait_until(member.is_ready, START_TIMEOUT_S)
        self.wait_whole()

    def stop(self) -> None:
        """Stop every node and epmd."""
        for member in self.members:
            member.kill_now()
        self._epmd.stop(STOP_TIMEOUT_S)

    def rolling_restart(self, then: Callable[[ClusterMember], None] | None = None) -> None:
        """Restart one node after another, each once the cluster is whole again. `then` is called after each restart."""
        for member in self.members:
            member.restart()
            self.wait_whole()
            if then is not None:
                then(member)

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on the first node that runs. Raises CalledProcessError."""
        return self.living()[0].control(*arguments)

    def living(self) -> list[ClusterMember]:
        """Return the nodes that neither ended nor are frozen."""
        return [member for member in self.members if member.process.is_running() and not member.is_frozen]

    def queues(self) -> list[str]:
        """Return the names of all queues."""
        listed = json.loads(self.control("list_queues", "name", "--formatter", "json"))
        return sorted(str(queue["name"]) for queue in listed)

    def delete_queue(self, name: str) -> bool:
        """Delete a queue and return False if it is gone already."""
        try:
            self.control("delete_queue", name)
        except CalledProcessError as error:
            if "not_found" in f"{error.stdout}{error.stderr}".lower().replace(" ", "_"):
                return False
            raise
        return True

    def wait_whole(self, timeout_s: float = WHOLE_TIMEOUT_S) -> None:
        """Return once every node accepts logins and is in the cluster."""
        deadline_s = time.monotonic() + timeout_s
        while not self._is_whole():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the cluster is not whole after {timeout_s} s")
            time.sleep(LOOK_INTERVAL_S)

    def heal(self) -> list[str]:
        """Start dead nodes, continue frozen ones, and restart those that stay alone; return the names of the latter."""
        for member in self.members:
            member.thaw()
            if not member.process.is_running():
                member.start()
        try:
            self.wait_whole(HEAL_TIMEOUT_S)
            return []
        except TimeoutError:
            alone = [member for member in self.members if member.peers_running() == 1]
            for member in alone:
                member.restart()
            self.wait_whole()
            return [member.name for member in alone]

    def _is_whole(self) -> bool:
        """Return whether all nodes run. A node that stayed alone is missing in every other node's view."""
        if len(self.living()) < NODES or not all(member.is_ready() for member in self.members):
            return False
        return self.members[0].peers_running() == NODES
