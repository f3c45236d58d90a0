"""One process of the load generator: a job and the pipe to the fleet."""

import asyncio
import os
import signal
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

import uvloop

from tests.bench.tally import MeasureWindow, Tally

TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The job is ready; `detail` appears in the fleet's progress line."""

    detail: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a job."""

    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class JobDone:
    """The result of a job."""

    tally: Tally


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended with an exception."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Every sender has ended; the last seq by room."""

    last_seq: dict[str, int] = field(default_factory=dict)


Report = Ready | Progress | JobDone | Failed
Order = MeasureWindow | Finish


class JobPipe:
    """A job's end of the pipe."""

    def __init__(self, pipe: "Connection[Report, Order]") -> None:
        self.counts: dict[str, int] = {}
        self.keep: object = None
        self._pipe = pipe
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._read)

    def _read(self) -> None:
        try:
            while self._pipe.poll():
                self._orders.put_nowait(self._pipe.recv())
        except EOFError:  # the fleet is gone, so this process has no purpose
            raise SystemExit(1) from None

    def ready(self, detail: str) -> None:
        """Report that the job is ready for load."""
        self._pipe.send(Ready(detail))

    async def window(self) -> MeasureWindow:
        """Wait for the start."""
        order = await self._orders.get()
        assert isinstance(order, MeasureWindow)
        return order

    async def finish(self) -> Finish:
        """Wait until all senders have ended."""
        order = await self._orders.get()
        assert isinstance(order, Finish)
        return order

    async def tick(self) -> None:
        """Report progress once a second until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self._pipe.send(Progress(dict(self.counts)))


class LoadJob(Protocol):
    """The work of a process: prepare, `link.ready`, `link.window`, load, `link.finish`, tally. Jobs are pickled."""

    name: str

    async def run(self, link: JobPipe) -> Tally:
        """Run the job and return its tally."""


def work(pipe: Any, job: LoadJob, timeout_s: float) -> None:
    """Run a job as the body of a process. Exits after `timeout_s` whatever happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.alarm(int(timeout_s) + 5)
    try:
        report: Report = JobDone(uvloop.run(_run(pipe, job, timeout_s)))
    except Exception as error:  # reported to the fleet, which raises it
        report = Failed(f"{type(error).__name__}: {error}")
    os.set_blocking(
        pipe.fileno(), True
    )  # the loop's reader made it non-blocking, and a tally can exceed the pipe's buffer
    pipe.send(report)
    pipe.close()


async def _run(pipe: Any, job: LoadJob, timeout_s: float) -> Tally:
    link = JobPipe(pipe)
    ticking = asyncio.create_task(link.tick())
    try:
        async with asyncio.timeout(timeout_s):
            return await job.run(link)
    finally:
        ticking.cancel()
        asyncio.get_running_loop().remove_reader(pipe.fileno())


async def sleep_until(at_us: int, now_us: int) -> None:
    """Sleep until a time of the shared clock."""
    await asyncio.sleep(max(at_us - now_us, 0) / 1e6)
