"""Commands that wait for their replies, until their deadlines."""

import asyncio
import heapq
import time
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec
from prometheus_client import Histogram

from shared.bus.batching import split_lines
from shared.commands.command import Command, Reply, request_id_of
from shared.errors import ErrorCode, RealtimeError, Unavailable
from shared.protocol.validation import decode
from shared.telemetry import logs, metrics, tracing

log = logs.get(__name__)

R = TypeVar("R")

_request_seconds: dict[tuple[str, str], Histogram] = {}
_reply_decoder = msgspec.json.Decoder(Reply)


class _PendingRequest(NamedTuple):
    """A command without a reply so far."""

    arriving: "asyncio.Future[Reply]"
    op: str
    request_id: str
    asked_at_s: float
    span: tracing.PendingSpan | None

    def measure(self, outcome: str) -> None:
        """Record the outcome. HOT: children are kept, because `labels` needs 1 us to find one."""
        child = _request_seconds.get((self.op, outcome))
        if child is None:
            child = _request_seconds[self.op, outcome] = metrics.REQUEST_SECONDS.labels(self.op, outcome)
        took_s = time.perf_counter() - self.asked_at_s
        child.observe(took_s)
        if self.span is not None:
            self.span.end(outcome)
        if logs.details:
            log.debug("command_answered", request_id=self.request_id, op=self.op, outcome=outcome, took_s=took_s)


class PendingRequests:
    """All unanswered commands of a process. Bound: their deadlines."""

    def __init__(self) -> None:
        self._waiting: dict[str, _PendingRequest] = {}
        self._deadlines: list[tuple[int, str]] = []  # a heap of all commands, including answered ones

    def expect(self, command: Command, span: tracing.PendingSpan | None) -> "asyncio.Future[Reply]":
        """Return the future of a command's reply; it may raise Unavailable. HOT: no coroutine and no timer."""
        arriving: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = _PendingRequest(
            arriving, command.op, request_id_of(command), time.perf_counter(), span
        )
        heapq.heappush(self._deadlines, (command.deadline_ms, command.id))
        return arriving

    def take(self, body: bytes) -> None:
        """Resolve the commands that a body of replies answers."""
        for line in split_lines(body):
            try:
                answer = decode(line, _reply_decoder)
            except RealtimeError as error:
                log.error("bad_reply_line", reason=str(error))
                continue
            asked = self._waiting.pop(answer.id, None)
            if asked is not None:
                asked.measure("ok" if answer.error is None else answer.error.code)
                if not asked.arriving.done():
                    asked.arriving.set_result(answer)

    def end_late(self, now_ms: int) -> None:
        """Fail the commands whose deadline has passed."""
        late: list[str] = []
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            late.append(heapq.heappop(self._deadlines)[1])
        self.fail(late, "no answer in time")

    def fail_all(self, reason: str) -> None:
        """Fail every unanswered command: its reply would go to a queue that is gone."""
        self.fail(list(self._waiting), reason)

    def fail(self, command_ids: Iterable[str], reason: str) -> None:
        """Fail these commands, as far as they are unanswered."""
        failed: list[str] = []
        for command_id in command_ids:
            asked = self._waiting.pop(command_id, None)
            if asked is not None:
                failed.append(asked.request_id)
                asked.measure(ErrorCode.UNAVAILABLE)
                if not asked.arriving.done():
                    asked.arriving.set_exception(Unavailable(reason))
        if failed:
            log.warning("commands_unanswered", reason=reason, commands=len(failed), request_ids=failed[:10])


def read_reply(reply: Reply, type_: type[R]) -> R:
    """Return the data of a reply. Raises the worker's Refusal."""
    if reply.error is not None:
        raise reply.error.to_refusal()
    return msgspec.json.decode(reply.data, type=type_)
