"""Random faults under load and a verdict over every item: `make chaos ARGS='--faults 200 --seed 1'`.

`--kinds kill:chat_service,broker-kill` restricts the faults; `--pause 4,6` sets the seconds between two faults. Exits
with 1 if anything was lost, repeated or reordered, or did not recover.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.plan import EVERYTHING, EVERYTHING_ON_CLUSTER, Choice, make_plan
from tests.chaos.report import report
from tests.chaos.run import ChaosOutcome, run
from tests.chaos.system import ClusterInfrastructure, Patient, patient
from tests.chaos.traffic import TrafficRates, quiet_connections
from tests.support.infrastructure import Infrastructure


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--rolling", action="store_true", help="restart every process with SIGTERM, one after another")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="", help="separated by commas; all if empty")
    parser.add_argument("--pause", default="1.5,5", help="seconds between two faults, from and to")
    parser.add_argument("--load", type=float, default=1.0, help="1 is 30 messages a second")
    parser.add_argument("--cluster", action="store_true", help="on three broker nodes, with faults of single nodes")
    parser.add_argument("--logs", type=Path, help="keep the system's logs here")
    arguments = parser.parse_args()
    choices = [Choice.parse(text) for text in arguments.kinds.split(",") if text]
    choices = choices or list(EVERYTHING_ON_CLUSTER if arguments.cluster else EVERYTHING)
    servers = ClusterInfrastructure if arguments.cluster else Infrastructure
    least_s, most_s = map(float, arguments.pause.split(","))
    plan = None if arguments.rolling else make_plan(arguments.seed, arguments.faults, choices, (least_s, most_s))

    async def go(system: Patient) -> ChaosOutcome:
        return await run(
            system, plan, arguments.seed, rates=TrafficRates(arguments.load), say=lambda text: print(text, flush=True)
        )

    with quiet_connections(), tempfile.TemporaryDirectory(prefix="realtime-chaos-") as name:
        directory = Path(name)
        try:
            with servers(directory) as infrastructure, patient(directory / "system", infrastructure) as system:
                violations = report(asyncio.run(go(system)), arguments.seed)
        finally:
            if arguments.logs is not None:
                arguments.logs.mkdir(parents=True, exist_ok=True)
                shutil.copy(directory / "system" / "supervisor.out", arguments.logs / "system.log")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
