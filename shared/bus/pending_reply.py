"""One request whose reply has not arrived: its future, and the measurement of its outcome."""

import asyncio
import time

from prometheus_client import Histogram

from shared.commands.command import BusRequest, Reply, request_id_of
from shared.errors import ErrorCode, Unavailable
from shared.telemetry import logs, metrics, tracing

log = logs.get(__name__)

_seconds: dict[tuple[str, str], Histogram] = {}


class PendingReply:
    """The reply to a request that was sent now. Call `resolve` or `fail` once. HOT: no coroutine and no timer."""

    __slots__ = ("_asked_at_s", "_op", "_span", "arriving", "request_id")

    def __init__(self, request: BusRequest, span: tracing.PendingSpan | None) -> None:
        self.arriving: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.request_id = request_id_of(request)
        self._op = request.op
        self._asked_at_s = time.perf_counter()
        self._span = span

    def resolve(self, reply: Reply) -> None:
        """Complete the request with its reply."""
        self._measure("ok" if reply.error is None else reply.error.code)
        if not self.arriving.done():  # the caller may have been cancelled
            self.arriving.set_result(reply)

    def fail(self, reason: str) -> None:
        """Complete the request with Unavailable."""
        self._measure(ErrorCode.UNAVAILABLE)
        if not self.arriving.done():
            self.arriving.set_exception(Unavailable(reason))

    def _measure(self, outcome: str) -> None:
        """Record the outcome. Children of the histogram are kept, because `labels` needs 1 us to find one."""
        child = _seconds.get((self._op, outcome))
        if child is None:
            child = _seconds[self._op, outcome] = metrics.REQUEST_SECONDS.labels(self._op, outcome)
        took_s = time.perf_counter() - self._asked_at_s
        child.observe(took_s)
        if self._span is not None:
            self._span.end(outcome)
        if logs.details:
            log.debug("command_answered", request_id=self.request_id, op=self._op, outcome=outcome, took_s=took_s)
