"""The shell around `FlushSchedule`: one timer, the pace, and the metrics of writes."""

import asyncio
import time

from gateway import metrics
from gateway.fanout.flush_schedule import FlushSchedule
from gateway.fanout.frame_peek import sent_at_ms
from gateway.fanout.lane import Written
from shared.times import now_ms


class Flusher:
    """Flushes `schedule` when it is due. Needs a running event loop."""

    def __init__(self) -> None:
        self.schedule = FlushSchedule(self._wake_at)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0

    def measure(self) -> None:
        """Add the plain integer counts to the metrics."""
        written, self.schedule.written = self.schedule.written, Written(self.schedule.written.sample)
        metrics.WRITES.inc(written.writes)
        metrics.FRAMES_OUT.labels("fanout").inc(written.frames)
        metrics.BYTES_OUT.labels("fanout").inc(written.size_bytes)

    def _wake_at(self, due_s: float) -> None:
        if self._timer is not None:
            if self._timer_at_s <= due_s:
                return
            self._timer.cancel()
        self._timer_at_s = due_s
        self._timer = self._loop.call_at(due_s, self._flush)

    def _flush(self) -> None:
        self._timer = None
        started_s = time.perf_counter()
        self.schedule.flush(self._loop.time())
        self._loop.call_soon(self._flushed, started_s)
        if (due_s := self.schedule.next_due_s) is not None:
            self._wake_at(due_s)

    def _flushed(self, started_s: float) -> None:
        """Measure the flush one loop iteration later: uvloop writes to the kernel at the end of an iteration."""
        self.schedule.pace(time.perf_counter() - started_s)
        if (sample := self.schedule.written.sample) is not None:
            self.schedule.written.sample = None
            if (sent_ms := sent_at_ms(sample)) is not None:
                metrics.DELIVERY_SECONDS.observe(max(now_ms() - sent_ms, 0) / 1000)
