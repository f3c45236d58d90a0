"""Shifts the wall clock of a Python process at its start; no hook in the services is needed.

Python imports a module of this name before anything else if it lies on PYTHONPATH. SKEW_DIR is a directory with a file
per process, named after its ADMIN_PORT, that holds the milliseconds to add. A process without a file keeps its clock.
Only `time.time` and `time.time_ns` are shifted: the services read no other wall clock. The monotonic clock stays right.
"""

import os
import time
from pathlib import Path

_NANOSECONDS_PER_MS = 1_000_000


def _skew_ms() -> int:
    try:
        return int((Path(os.environ["SKEW_DIR"]) / os.environ["ADMIN_PORT"]).read_text())
    except (KeyError, OSError):
        return 0


def _shift(skew_ms: int) -> None:
    right_s, right_ns = time.time, time.time_ns
    time.time = lambda: right_s() + skew_ms / 1000
    time.time_ns = lambda: right_ns() + skew_ms * _NANOSECONDS_PER_MS


if _skew := _skew_ms():
    _shift(_skew)
