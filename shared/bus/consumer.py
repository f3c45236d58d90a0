"""The consumer of one queue: batches of lines to a handler, and their settlement.

The ack policy is implemented only here:

    handler returns                        → acknowledged; lines that it rejected go to realtime.dead first
    handler raises Unavailable             → retried with backoff without a limit: every line would fail;
                                             while stopping: left unacknowledged
    handler raises anything else           → each line alone, five times with backoff; then realtime.dead
    cancelled, or the connection is lost   → left unacknowledged: the broker delivers it again

A line that is retried, here or by the broker, is marked `redelivered`: an earlier attempt may have taken effect.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from shared.backoff import Backoff
from shared.bus.topology import queue_label
from shared.commands.command import asked_at_ms, command_ids_of
from shared.errors import Unavailable
from shared.telemetry import logs, metrics
from shared.times import now_ms

log = logs.get(__name__)

UNAVAILABLE_BACKOFF_FIRST_S = 0.1
UNAVAILABLE_BACKOFF_MAX_S = 1.0
FAILURE_BACKOFF_FIRST_S = 0.1
FAILURE_BACKOFF_MAX_S = 0.8
TRIES_MAX = 5


@dataclass(slots=True)
class Line:
    """One line of a body, and how to answer it."""

    body: bytes
    reply_to: str | None
    routing_key: str
    redelivered: bool
    rejected: str | None = None

    def reject(self, reason: str) -> None:
        """Send the line to realtime.dead with the reason: it can never be processed."""
        self.rejected = reason


@dataclass(slots=True, eq=False)
class Inbound:
    """One AMQP message. `acknowledge(multiple)` settles it, or with True it and all before it."""

    lines: list[Line]
    acknowledge: Callable[[bool], Awaitable[None]]
    since_ms: int = 0  # when its first line was created if that is a command, else when the message arrived


class Stoppable(Protocol):
    """A consumer's channel, as the bus provides it."""

    async def cancel(self) -> None:
        """Stop taking messages from the queue."""

    async def close(self) -> None:
        """Return the unacknowledged messages to the queue."""


Handler = Callable[[list[Line]], Awaitable[None]]
DeadLetterSink = Callable[..., Awaitable[None]]


class Consumer:
    """Batches from one queue. The bus feeds it with `accept`; its workers call the handler.

    Bound: the channel's prefetch, in AMQP messages. Lines are gathered to at most 64 KB a message; a longer line, and
    bodies of other producers, may be larger.
    """

    def __init__(
        self,
        queue: str,
        handle: Handler,
        dead_letter: DeadLetterSink,
        *,
        prefetch: int,
        max_lines: int,
        concurrency: int,
        split: Callable[[bytes], list[bytes]],
    ) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self.split = split
        self._handle = handle
        self._dead_letter = dead_letter
        self._max_lines = max_lines
        self._concurrency = concurrency
        self._inbox: deque[Inbound] = deque()
        self._arrived = asyncio.Event()
        # Grows when messages taken so far must no longer be settled: a lost connection, or Unavailable while stopping.
        self._epoch = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._channel: Stoppable | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._in_progress: list[Inbound] = []
        self._label = queue_label(queue)
        self._waited = metrics.BUS_WAIT_SECONDS.labels(self._label)

    def run(self, tasks: asyncio.TaskGroup) -> None:
        """Start the workers."""
        for number in range(self._concurrency):
            self._workers.append(tasks.create_task(self._work(), name=f"consume-{self.queue}-{number}"))

    @property
    def is_stopping(self) -> bool:
        """Return whether the consumer takes no more messages."""
        return self._stopping

    def connected(self, channel: Stoppable) -> None:
        """Use this channel from now on."""
        self._channel = channel

    def connection_lost(self) -> None:
        """Forget the waiting messages: the broker delivers them again.

        Batches in progress run on, but their outcome is not settled.
        """
        self._epoch += 1
        self._channel = None
        self._inbox.clear()
        self._arrived.clear()

    def accept(self, inbound: Inbound) -> None:
        """Queue one AMQP message for the workers."""
        if self._stopping:
            return
        inbound.since_ms = (asked_at_ms(inbound.lines[0].body) if inbound.lines else None) or now_ms()
        self._inbox.append(inbound)
        self._arrived.set()

    @property
    def is_attached(self) -> bool:
        """Return whether the broker sends messages to this consumer."""
        return self._channel is not None and not self._stopping

    def measure(self, at_ms: int) -> None:
        """Update the gauges of the waiting lines and the age of the oldest."""
        metrics.BUS_BACKLOG_LINES.labels(self._label).set(sum(len(inbound.lines) for inbound in self._inbox))
        begun = [*self._in_progress, *([self._inbox[0]] if self._inbox else [])]
        oldest_ms = min((inbound.since_ms for inbound in begun), default=at_ms)
        metrics.BUS_OLDEST_SECONDS.labels(self._label).set(max(at_ms - oldest_ms, 0) / 1000)

    def measure_depth(self, messages: int) -> None:
        """Update the gauge of the messages that wait at the broker."""
        if not self._stopping:
            metrics.BUS_QUEUE_DEPTH.labels(self._label).set(messages)

    async def stop(self) -> None:
        """Take no more messages, finish those in progress, and return the rest to the queue."""
        self._stopping = True
        self._inbox.clear()
        channel = self._channel
        try:
            if channel is not None:
                await channel.cancel()
            await self._idle.wait()
            if channel is not None:
                await channel.close()
        finally:
            for worker in self._workers:
                worker.cancel()
            for gauge in (metrics.BUS_BACKLOG_LINES, metrics.BUS_OLDEST_SECONDS, metrics.BUS_QUEUE_DEPTH):
                gauge.remove(self._label)  # the waiting messages belong to another consumer now

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not batch:
                continue
            self._in_progress.append(batch[0])
            self._idle.clear()
            try:
                await self._process(batch)
            finally:
                self._in_progress.remove(batch[0])
                if not self._in_progress:
                    self._idle.set()

    def _take(self) -> list[Inbound]:
        batch: list[Inbound] = []
        lines = 0
        while self._inbox and (not batch or lines + len(self._inbox[0].lines) <= self._max_lines):
            inbound = self._inbox.popleft()
            lines += len(inbound.lines)
            batch.append(inbound)
        if not self._inbox:
            self._arrived.clear()
        return batch

    async def _process(self, batch: list[Inbound]) -> None:
        epoch = self._epoch
        lines = [line for inbound in batch for line in inbound.lines]
        self._count(lines)
        started_s = time.perf_counter()
        if not await self._try(lines, epoch, tries_max=1):
            for line in lines:
                if not await self._try([line], epoch, tries_max=TRIES_MAX):
                    line.reject("processing failed repeatedly; see the logs")
        metrics.BUS_BATCH_SECONDS.labels(self._label).observe(time.perf_counter() - started_s)
        await self._settle(batch, lines, epoch)

    def _count(self, lines: list[Line]) -> None:
        metrics.BUS_LINES_TAKEN.labels(self._label).inc(len(lines))
        metrics.BUS_BATCH_LINES.labels(self._label).observe(len(lines))
        at_ms = now_ms()
        for line in lines:
            if not line.redelivered and (made_ms := asked_at_ms(line.body)) is not None:
                self._waited.observe(max(at_ms - made_ms, 0) / 1000)

    async def _try(self, lines: list[Line], epoch: int, *, tries_max: int) -> bool:
        """Run the handler until it succeeds or the epoch ends (True), or it fails too often (False)."""
        failures = 0
        unavailable = Backoff(UNAVAILABLE_BACKOFF_FIRST_S, UNAVAILABLE_BACKOFF_MAX_S)
        failed = Backoff(FAILURE_BACKOFF_FIRST_S, FAILURE_BACKOFF_MAX_S)
        while epoch == self._epoch:
            try:
                await self._handle(lines)
                return True
            except Unavailable as error:
                delay_s = unavailable.next_s()
                log.warning("batch_delayed", queue=self.queue, reason=str(error), retry_in_s=delay_s, **_log_ids(lines))
                metrics.BUS_RETRIES.labels(self._label, "unavailable").inc()
                _mark_redelivered(lines)
                if self._stopping:  # left unacknowledged: the broker delivers it to another consumer
                    self._epoch += 1
                    return True
                await asyncio.sleep(delay_s)
            except Exception:  # one failing message must not stop the consumer
                failures += 1
                log.exception("batch_failed", queue=self.queue, failures=failures, **_log_ids(lines))
                metrics.BUS_RETRIES.labels(self._label, "failure").inc()
                _mark_redelivered(lines)
                if failures >= tries_max:
                    return False
                await asyncio.sleep(failed.next_s())
        return True

    async def _settle(self, batch: list[Inbound], lines: list[Line], epoch: int) -> None:
        backoff = Backoff(UNAVAILABLE_BACKOFF_FIRST_S, UNAVAILABLE_BACKOFF_MAX_S)
        for line in lines:
            while line.rejected is not None and epoch == self._epoch:
                try:
                    await self._dead_letter(line.body, queue=self.queue, reason=line.rejected)
                    break
                except Unavailable:
                    await asyncio.sleep(backoff.next_s())
        if epoch != self._epoch:
            return
        if self._concurrency == 1:
            await batch[-1].acknowledge(True)
        else:
            for inbound in batch:
                await inbound.acknowledge(False)


def _log_ids(lines: list[Line]) -> dict[str, object]:
    return {"lines": len(lines), "command_ids": command_ids_of(line.body for line in lines)}


def _mark_redelivered(lines: list[Line]) -> None:
    for line in lines:
        line.redelivered = True
