"""`fanout`, `idle` and `connect` on comparable servers, which have no tokens, no broker and no disk."""

from argparse import Namespace

from tests.bench.fleet import Fleet
from tests.bench.jobs.connect import Connect
from tests.bench.jobs.listen import Listen
from tests.bench.jobs.publish import Publish
from tests.bench.peerservers import PeerServer, RunningPeer, serving
from tests.bench.processes import CpuMeter, total_memory
from tests.bench.report import ScenarioOutcome
from tests.bench.scenarios.connect import measure
from tests.bench.worker import LoadJob

HOST = "127.0.0.1"
ROOM = "room_00000000000000000000000000"  # as long as a real id


def fanout(peer: PeerServer, options: Namespace) -> ScenarioOutcome:
    """Run one publishing socket and n receiving sockets."""
    with serving(peer) as running:
        jobs: list[LoadJob] = list(_listeners(peer, running, options))
        jobs.append(
            Publish("publisher", HOST, running.port, peer.publisher(), peer.wrap, ROOM, options.rate, options.size)
        )
        with Fleet(jobs, options.timeout) as fleet:
            fleet.wait_ready()
            meter = CpuMeter(running.pids)
            window = fleet.run(options.seconds, options.warmup, meter)
            tally = fleet.collect(["publisher"])
    settings = {"sockets": options.sockets, "rate": options.rate, "size": options.size}
    return ScenarioOutcome("fanout", peer.name, settings, tally, window, meter.used_s)


def idle(peer: PeerServer, options: Namespace) -> ScenarioOutcome:
    """Run idle sockets."""
    with serving(peer) as running:
        before_bytes = total_memory(running.pids.values())
        with Fleet(_listeners(peer, running, options), options.timeout) as fleet:
            fleet.wait_ready()
            meter = CpuMeter(running.pids)
            window = fleet.run(options.seconds, options.warmup, meter)
            after_bytes = total_memory(running.pids.values())
            tally = fleet.collect([])
    used_s = sum(used for name, used in meter.used_s.items() if not name.startswith("load"))
    figures = {
        "bytes_a_socket": (after_bytes - before_bytes) // options.sockets,
        "percent_of_a_core": round(used_s / window.measured_s * 100, 2),
    }
    return ScenarioOutcome("idle", peer.name, {"sockets": options.sockets}, tally, window, meter.used_s, figures)


def connect(peer: PeerServer, options: Namespace) -> ScenarioOutcome:
    """Measure upgrades per second, without authentication."""
    with serving(peer) as running:
        jobs = [
            Connect(
                f"connect {process}",
                HOST,
                running.port,
                [peer.listener() for _ in range(process, options.sockets, options.listeners)],
                2 + 10 * process,
                options.concurrency // options.listeners,
            )
            for process in range(options.listeners)
        ]
        return measure(jobs, options, peer.name, running.pids)


def _listeners(peer: PeerServer, running: RunningPeer, options: Namespace) -> list[Listen]:
    return [
        Listen(
            f"listen {process}",
            HOST,
            running.port,
            [peer.listener() for _ in range(process, options.sockets, options.listeners)],
            ROOM,
            counts=peer.counts,
            first_address=2 + 10 * process,
        )
        for process in range(options.listeners)
    ]
