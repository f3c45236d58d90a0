"""`python -m tests.fuzz --minutes 10 --seed 1`: prints the seed and the findings; exits with 1 if there are any."""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.run import SETTINGS, fuzz
from tests.support.local_system import LocalSystem


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory, LocalSystem(Path(directory), SETTINGS) as system:
        report = asyncio.run(fuzz(system, options.minutes * 60, options.seed))
    print(report)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
