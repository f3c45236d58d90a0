"""Clean-up of the processes that a run started, grandchildren and orphans included.

Every child inherits its run's mark in the environment. The mark is read from /proc, so no list of process ids is kept
and a recycled id cannot be mistaken for a child.

Run as a program, this is the guard: it waits for the end of its standard input, which comes when its owner dies, even
by SIGKILL, and then kills all processes that the owner left running.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK_VARIABLE = "REALTIME_RUN_MARK"

_POLL_INTERVAL_S = 0.05
_CLEAN_SCANS = 3


def marked_pids(mark: str) -> list[int]:
    """Return the living processes that carry `mark`, except the caller."""
    entry_of_mark = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # The environment of an ended process, or of another user's, is unreadable.
        with contextlib.suppress(OSError):
            if entry_of_mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def kill_marked(mark: str, timeout_s: float = 10.0) -> list[int]:
    """Send SIGKILL to every process that carries `mark` until none is left, and return their ids.

    Repeats the search, because a forked child carries no mark until it executes its program. Raises TimeoutError if a
    process outlives `timeout_s`.
    """
    killed: set[int] = set()
    deadline_s = time.monotonic() + timeout_s
    clean_scans = 0
    while clean_scans < _CLEAN_SCANS:
        pids = marked_pids(mark)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(pids)
        clean_scans = 0 if pids else clean_scans + 1
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"processes {pids} do not end")
        if clean_scans < _CLEAN_SCANS:
            time.sleep(_POLL_INTERVAL_S)
    return sorted(killed)


def start_guard(mark: str) -> subprocess.Popen[bytes]:
    """Start the process that ends all processes with `mark` once the caller is gone.

    Closing the guard's standard input makes it do so now, and exit.
    """
    arguments = [sys.executable, "-I", "-S", __file__, mark]
    # In its own session, so that Ctrl-C does not reach it, and without a mark, so that no other guard ends it.
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, env={}, cwd="/", start_new_session=True)  # noqa: S603


def _guard(mark: str) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while sys.stdin.buffer.read(4096):
        pass
    kill_marked(mark)


if __name__ == "__main__":
    _guard(sys.argv[1])
