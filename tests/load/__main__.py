"""`python -m tests.load SCENARIO [options]`: load on the whole system, started for it; see docs/performance.md.

Every run prints one table and writes the same as JSON under build/bench.
"""

import argparse
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping

from tests.load import report
from tests.load.fleet import LoadFailed
from tests.load.report import Outcome
from tests.load.scenarios import fanout, rooms

Run = Callable[[Namespace], Outcome]

SCENARIOS: Mapping[str, Run] = {"fanout": fanout.run, "rooms": rooms.run}
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "fanout": {"rate": 1500.0, "size": 200, "senders": 20},
    "rooms": {"rate": 1000.0, "size": 100, "senders": 200},
}


def parse(arguments: list[str]) -> Namespace:
    """Read the command line; what is not given is the scenario's own default."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--rate", type=float, help="messages a second, all senders together")
    parser.add_argument("--size", type=int, help="bytes of a frame (fanout lines) or of a message's text")
    parser.add_argument("--senders", type=int)
    parser.add_argument("--mode", choices=("lines", "chat"), default="lines", help="fanout: how messages enter")
    parser.add_argument("--listeners", type=int, default=1, help="processes that share the listening sockets")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured")
    parser.add_argument("--warmup", type=float, default=3.0, help="the same load before it is measured")
    parser.add_argument("--timeout", type=float, default=180.0, help="of a run; then it has failed")
    options = parser.parse_args(arguments)
    for name, value in DEFAULTS[options.scenario].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> int:
    """Run the scenario; 1 if anything was lost, repeated or out of order, or nothing could be measured."""
    options = parse(sys.argv[1:])
    try:
        outcome = SCENARIOS[options.scenario](options)
    except LoadFailed as failure:
        print(f"{options.scenario}: {failure}", file=sys.stderr)
        return 1
    print(report.table(outcome))
    print(f"  {report.write(outcome)}")
    tally = outcome.tally
    return 1 if tally.lost or tally.repeated or tally.disordered else 0


if __name__ == "__main__":
    sys.exit(main())
