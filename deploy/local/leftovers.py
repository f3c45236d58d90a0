"""Finds and ends the processes that a run started, grandchildren and orphans included.

Every child gets its run's mark in the environment, and so does all that it starts itself. The mark can be read back
from /proc, so no list of process ids has to be kept and no id of a stranger can be mistaken for one of ours.

Run as a program, this is the guard: it waits for the end of its standard input, which comes when its owner dies, by
SIGKILL too, and then ends all that its owner left behind.
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
    """Return the living processes that carry `mark`, the caller left out."""
    entry_of_mark = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # A process that has ended, or is another user's, has no readable environment.
        with contextlib.suppress(OSError):
            if entry_of_mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def kill_marked(mark: str, timeout_s: float = 10.0) -> list[int]:
    """SIGKILL what carries `mark` until nothing of it is left. Returns the ids that were killed.

    Looks several times, since a child that was being forked carries no mark until it executes its program.
    Raises TimeoutError when a process outlives `timeout_s`.
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
    """Start the process that ends all that carries `mark` as soon as the calling process is gone.

    Closing the guard's standard input asks it to do so now, and then to end.
    """
    arguments = [sys.executable, "-I", "-S", __file__, mark]
    # A session of its own, since the terminal's Ctrl-C is not for it, and no mark, since another guard is not either.
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, env={}, cwd="/", start_new_session=True)  # noqa: S603


def _guard(mark: str) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while sys.stdin.buffer.read(4096):
        pass
    kill_marked(mark)


if __name__ == "__main__":
    _guard(sys.argv[1])
