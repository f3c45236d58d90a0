"""CPU time and memory of processes, from /proc."""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process in steps of 10 ms, or 0.0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def is_idle(pid: int, share: float = 0.05) -> bool:
    """Watch a process for a second, and return whether it used at most `share` of a core."""
    before_s = cpu_s(pid)
    time.sleep(1.0)
    return cpu_s(pid) - before_s <= share


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process, or 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0)


def children(pid: int) -> list[int]:
    """Return the running children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Wakeups(NamedTuple):
    """Voluntary context switches: how often the main thread slept (an event loop: in its selector), and all others."""

    main: int
    others: int


def wakeups(pid: int) -> Wakeups:
    """Return a process's voluntary context switches since its start, or zeros if it is gone."""
    main = others = 0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            count = _voluntary_switches(task)
            if task.name == str(pid):
                main = count
            else:
                others += count
    return Wakeups(main, others)


def _voluntary_switches(task: Path) -> int:
    with suppress(OSError):
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                return int(line.split()[1])
    return 0


def client_ports(pid: int) -> set[int]:
    """Return the local ports of a process's IPv4 TCP sockets."""
    sockets: set[str] = set()
    with suppress(OSError):
        for number in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(os.readlink(number))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets}


def system_pids(entries: Mapping[str, str]) -> dict[str, int]:
    """Return the processes of a running system by their names in `run.env`, each once."""
    pids: dict[str, int] = {}
    for name, value in entries.items():
        if name.endswith("_PID") and int(value) not in pids.values():
            pids[name.removesuffix("_PID").lower()] = int(value)
    return pids


class CpuMeter:
    """CPU seconds by process name between `begin` and `end`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._begun: dict[str, float] = {}
        self.used_s: dict[str, float] = {}

    def add(self, pids: Mapping[str, int]) -> None:
        """Measure more processes."""
        self._pids |= pids

    def begin(self) -> None:
        """Take the first reading."""
        self._begun = self._read()

    def end(self) -> None:
        """Take the second reading and return the differences."""
        self.used_s = {name: used - self._begun.get(name, used) for name, used in self._read().items()}

    def _read(self) -> dict[str, float]:
        return {name: cpu_s(pid) for name, pid in self._pids.items()}


def total_memory(pids: Iterable[int]) -> int:
    """Return the combined resident memory of processes."""
    return sum(map(memory_bytes, pids))
