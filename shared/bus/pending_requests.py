"""Service requests that wait for their replies, until their deadlines."""

import asyncio
import heapq
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from shared.bus.batching import split_lines
from shared.bus.pending_reply import PendingReply
from shared.commands.command import Reply, ServiceRequest
from shared.errors import RealtimeError, Unavailable
from shared.protocol.validation import decode
from shared.telemetry import logs, tracing

log = logs.get(__name__)

R = TypeVar("R")

_reply_decoder = msgspec.json.Decoder(Reply)


class PendingRequests:
    """All unanswered service requests of a process. Each is dropped at its deadline."""

    def __init__(self) -> None:
        self._waiting: dict[str, PendingReply] = {}
        self._deadlines: list[tuple[int, str]] = []  # a heap of all requests, including answered ones

    def __bool__(self) -> bool:
        """Return whether a request is unanswered."""
        return bool(self._waiting)

    def expect(self, request: ServiceRequest, span: tracing.PendingSpan | None) -> "asyncio.Future[Reply]":
        """Return the future of a request's reply; it may raise Unavailable. HOT: no coroutine and no timer."""
        pending = self._waiting[request.id] = PendingReply(request, span)
        heapq.heappush(self._deadlines, (request.deadline_ms, request.id))
        return pending.arriving

    def take(self, body: bytes) -> None:
        """Resolve the requests that a body of replies answers."""
        for line in split_lines(body):
            try:
                answer = decode(line, _reply_decoder)
            except RealtimeError as error:
                log.error("bad_reply_line", reason=str(error))
                continue
            pending = self._waiting.pop(answer.id, None)
            if pending is not None:
                pending.resolve(answer)

    def end_late(self, now_ms: int) -> None:
        """Fail the requests whose deadline has passed."""
        late: list[str] = []
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            late.append(heapq.heappop(self._deadlines)[1])
        self.fail(late, "no answer in time")

    def fail_all(self, reason: str) -> None:
        """Fail every unanswered request: its reply would go to a queue that is gone."""
        self.fail(list(self._waiting), reason)

    def fail(self, command_ids: Iterable[str], reason: str) -> None:
        """Fail the requests with these ids that are still unanswered."""
        failed: list[str] = []
        for command_id in command_ids:
            pending = self._waiting.pop(command_id, None)
            if pending is not None:
                failed.append(pending.request_id)
                pending.fail(reason)
        if failed:
            log.warning("commands_unanswered", reason=reason, commands=len(failed), request_ids=failed[:10])


def read_reply(reply: Reply, type_: type[R]) -> R:
    """Return the data of a reply. Raises the worker's Refusal, or Unavailable for data of another release."""
    if reply.error is not None:
        raise reply.error.to_refusal()
    try:
        return msgspec.json.decode(reply.data, type=type_)
    except msgspec.DecodeError as error:
        raise Unavailable("the worker's answer has the format of another release") from error
