"""`python -m tests.bench [scenario…] [options]`: load on a system started for it; see docs/performance.md.

Without a scenario, all of them run. `--peers` also runs fanout, idle and connect on comparable servers; those that
cannot be installed here are named and skipped. Every run prints one table and writes it as JSON under build/bench.
Exits with 1 if anything was lost, repeated or reordered, or a run failed.
"""

import argparse
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from tests.bench import report
from tests.bench.fleet import LoadFailed
from tests.bench.peerservers import PEERS_BY_NAME, Absent, PeerServer
from tests.bench.report import ScenarioOutcome
from tests.bench.scenarios import (
    activity,
    connect,
    fanout,
    flood,
    idle,
    latency,
    market,
    peers,
    presence,
    quiet,
    reactions,
    rooms,
    search,
    slow,
)

Run = Callable[[Namespace], ScenarioOutcome]

SCENARIOS: Mapping[str, Run] = {
    "fanout": fanout.run,
    "rooms": rooms.run,
    "market": market.run,
    "idle": idle.run,
    "connect": connect.run,
    "latency": latency.run,
    "presence": presence.run,
    "activity": activity.run,
    "slow": slow.run,
    "quiet": quiet.run,
    "flood": flood.run,
    "search": search.run,
    "reactions": reactions.run,
}
ON_PEERS: Mapping[str, Callable[[PeerServer, Namespace], ScenarioOutcome]] = {
    "fanout": peers.fanout,
    "idle": peers.idle,
    "connect": peers.connect,
}
WARMUP_S = 3.0
SECONDS = 10.0
SETTLE_S = 15.0  # until the presence of 10,000 simultaneous clients is stored and announced
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "fanout": {"sockets": 1000, "rate": 1500.0, "size": 200, "senders": 20, "listeners": 1},
    "rooms": {"sockets": 200, "rate": 1000.0, "size": 100, "senders": 200, "listeners": 1},
    "market": {"sockets": 1000, "rate": 4.0, "size": 0, "senders": 0, "listeners": 1},
    "idle": {"sockets": 10_000, "rate": 0.0, "size": 0, "senders": 0, "listeners": 2, "warmup": SETTLE_S},
    "connect": {"sockets": 6000, "rate": 0.0, "size": 0, "senders": 0, "listeners": 2},
    "latency": {"sockets": 10_000, "rate": 50.0, "size": 100, "senders": 100, "listeners": 2, "warmup": SETTLE_S},
    "presence": {"sockets": 20_000, "rate": 0.0, "size": 0, "senders": 0, "listeners": 2},
    "activity": {"sockets": 1000, "rate": 1000.0, "size": 100, "senders": 500, "listeners": 1},
    "slow": {"sockets": 200, "rate": 500.0, "size": 2000, "senders": 0, "listeners": 1},
    "quiet": {"sockets": 400, "rate": 0.0, "size": 100, "senders": 200, "listeners": 1, "seconds": 30.0, "warmup": 6.0},
    "search": {"sockets": 0, "rate": 1000.0, "size": 0, "senders": 200, "listeners": 0, "seconds": 20.0},
    "reactions": {"sockets": 1000, "rate": 0.0, "size": 0, "senders": 0, "listeners": 0},
    "flood": {"sockets": 400, "rate": 0.0, "size": 100, "senders": 200, "listeners": 2, "seconds": 30.0, "warmup": 3.0},
}


def parse(arguments: list[str]) -> Namespace:
    """Parse the command line; missing options use each scenario's defaults."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--sockets", type=int)
    parser.add_argument("--rate", type=float, help="messages a second, all senders together; market: ticks a symbol")
    parser.add_argument("--size", type=int, help="bytes of a frame (fanout lines) or of a message's text")
    parser.add_argument("--senders", type=int)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--max-rate", type=int, default=10, help="market: prices a second and symbol")
    parser.add_argument("--channels", type=int, default=3, help="idle, latency: of a socket, 1 to 3")
    parser.add_argument("--concurrency", type=int, default=100, help="connect: how many are on their way at once")
    parser.add_argument(
        "--mode", choices=("lines", "chat", "resume"), default="lines", help="fanout: how messages enter"
    )
    parser.add_argument("--listeners", type=int, help="processes that share the sockets")
    parser.add_argument("--seconds", type=float, help="measured")
    parser.add_argument("--warmup", type=float, help="s of the same load before it is measured")
    parser.add_argument("--rates", default="10,100,500", help="quiet: messages a second, one run each")
    parser.add_argument("--no-counts", dest="counts", action="store_false", help="quiet: count no frames and commands")
    parser.add_argument("--saturation", action="store_true", help="quiet: search the highest rate of each side too")
    parser.add_argument("--budget", type=float, default=300.0, help="quiet: s of each side's search")
    parser.add_argument("--messages", type=int, default=1_000_000, help="search: in the large room")
    parser.add_argument("--rounds", type=int, default=100, help="search: of each query")
    parser.add_argument("--timeout", type=float, default=300.0, help="of a run; then it has failed")
    parser.add_argument("--peers", action="store_true", help="fanout, idle and connect on other servers too")
    parser.add_argument("--peer", action="append", choices=PEERS_BY_NAME, help="of them only this one, or these")
    options = parser.parse_args(arguments)
    options.peers |= options.peer is not None
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}, only {', '.join(SCENARIOS)}")
    return options


def with_defaults(options: Namespace, scenario: str) -> Namespace:
    """Return the options of one scenario."""
    own = Namespace(**vars(options))
    for name, value in {"warmup": WARMUP_S, "seconds": SECONDS, **DEFAULTS[scenario]}.items():
        if getattr(own, name) is None:
            setattr(own, name, value)
    return own


def runs(options: Namespace) -> Iterator[tuple[str, Callable[[], ScenarioOutcome]]]:
    """Yield every run, one after another."""
    chosen = options.scenarios or [name for name in SCENARIOS if not options.peers or name in ON_PEERS]
    for name in chosen:
        own = with_defaults(options, name)
        yield name, partial(SCENARIOS[name], own)
        if not options.peers or name not in ON_PEERS:
            continue
        for peer_name in options.peer or PEERS_BY_NAME:
            peer = PEERS_BY_NAME[peer_name]
            yield f"{name} on {peer_name}", partial(ON_PEERS[name], peer, own)


def main() -> int:
    """Run the requested scenarios and return the exit code."""
    failed = False
    for name, run in runs(parse(sys.argv[1:])):
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            outcome = run()
        except Absent as absent:
            print(f"{name}: skipped: {absent}")
            continue
        except LoadFailed as failure:
            print(f"{name}: {failure}")
            failed = True
            continue
        print(report.table(outcome))
        print(f"  {report.write(outcome)}", flush=True)
        tally = outcome.tally
        failed |= outcome.server == "realtime" and bool(tally.lost or tally.repeated or tally.disordered)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
