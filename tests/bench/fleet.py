"""The processes of the load generator, controlled from outside: start, wait, set the window, show progress, collect."""

import multiprocessing
import multiprocessing.connection
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

from tests.bench.marks import now_us
from tests.bench.processes import CpuMeter
from tests.bench.tally import MeasureWindow, Tally, merged
from tests.bench.worker import Failed, Finish, JobDone, LoadJob, Order, Progress, Ready, Report, work

START_DELAY_S = 0.3


class LoadFailed(Exception):
    """The load could not be generated; nothing was measured."""


class FleetWorker:
    """One process and its latest report."""

    def __init__(self, job: LoadJob, timeout_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.job = job
        self.pipe: Connection[Order, Report]
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=work, args=(theirs, job, timeout_s), daemon=True)
        self.process.start()
        theirs.close()
        self.is_ready = False
        self.tally: Tally | None = None
        self.counts: dict[str, int] = {}


class Fleet:
    """All processes of one run. `timeout_s` bounds the whole run."""

    def __init__(self, jobs: Sequence[LoadJob], timeout_s: float) -> None:
        self._deadline_s = time.monotonic() + timeout_s
        self._members = [FleetWorker(job, timeout_s) for job in jobs]
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.process.kill()
            member.process.join()
            member.pipe.close()

    @property
    def pids(self) -> dict[str, int]:
        """Return the process ids by job name."""
        return {f"load {member.job.name}": member.process.pid or 0 for member in self._members}

    def wait_ready(self) -> None:
        """Return when every job is ready."""
        self._wait(lambda: all(member.is_ready for member in self._members))

    def run(self, window_s: float, warmup_s: float, meter: CpuMeter) -> MeasureWindow:
        """Set the same window for all, wait until it ends, and measure CPU over its measured part."""
        begin_us = now_us() + round(START_DELAY_S * 1e6)
        measure_us = begin_us + round(warmup_s * 1e6)
        window = MeasureWindow(begin_us, measure_us, measure_us + round(window_s * 1e6))
        meter.add(self.pids)
        self._order(self._members, window)
        self._wait(lambda: now_us() >= window.measure_us)
        meter.begin()
        self._wait(lambda: now_us() >= window.until_us)
        meter.end()
        return window

    def collect(self, senders: Sequence[str]) -> Tally:
        """Wait for the senders, tell the others what they should have received, and add up all tallies."""
        sending = [member for member in self._members if member.job.name in senders]
        others = [member for member in self._members if member not in sending]
        if sending:
            self._wait(lambda: all(member.tally is not None for member in sending))
        sent = merged(member.tally for member in sending if member.tally is not None)
        self._order(others, Finish(sent.last_seq))
        self._wait(lambda: all(member.tally is not None for member in self._members))
        return merged(member.tally for member in self._members if member.tally is not None)

    def _order(self, members: Sequence[FleetWorker], order: Order) -> None:
        for member in members:
            member.pipe.send(order)

    def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if time.monotonic() > self._deadline_s:
                raise LoadFailed(f"not done in time: {self._progress()}")
            pipes = {member.pipe: member for member in self._members if member.tally is None}
            for pipe in multiprocessing.connection.wait(list(pipes), 0.01):
                self._take(pipes[pipe])  # type: ignore[index]
            self._show()
        self._show()

    def _take(self, member: FleetWorker) -> None:
        try:
            report = member.pipe.recv()
        except EOFError:
            raise LoadFailed(f"the process of {member.job.name} has ended") from None
        match report:
            case Ready():
                member.is_ready = True
            case Progress(counts):
                member.counts = counts
            case JobDone(tally):
                member.tally = tally
            case Failed(reason):
                raise LoadFailed(f"{member.job.name}: {reason}")

    def _progress(self) -> str:
        counts: dict[str, int] = {}
        for member in self._members:
            for name, count in member.counts.items():
                counts[name] = counts.get(name, 0) + count
        return " · ".join(f"{count:,} {name}" for name, count in counts.items())

    def _show(self) -> None:
        now_s = time.monotonic()
        every_s = 1.0 if sys.stderr.isatty() else 5.0
        if now_s - self._shown_s < every_s or not self._progress():
            return
        self._shown_s = now_s
        end = "\r" if sys.stderr.isatty() else "\n"
        print(f"  … {self._progress():70}", end=end, file=sys.stderr, flush=True)
