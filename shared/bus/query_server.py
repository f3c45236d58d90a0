"""The answer to service requests: a line in, a reply line out, and never a stack trace to the caller."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from shared.bus.consumer import Line
from shared.bus.publisher import Publisher
from shared.byte_budget import ByteBudget
from shared.commands.command import SMALL_ANSWER_BYTES, ServiceRequest, refusal_line, reply_line, request_id_of
from shared.errors import ErrorCode, Malformed, Refusal, Unavailable
from shared.protocol.validation import decode
from shared.telemetry import correlation, logs, metrics, tracing

log = logs.get(__name__)


def decode_request(line: Line, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """Return the request of a line, or None and reject the line if it holds none."""
    try:
        if line.reply_to is None:
            raise Malformed("reply_to is missing")
        return decode(line.body, decoder)
    except (Malformed, Refusal) as error:
        line.reject(str(error))
        return None


def unavailable(error: Unavailable) -> Refusal:
    """Return the refusal that reports an unavailable dependency to the caller."""
    return Refusal(ErrorCode.UNAVAILABLE, str(error))


ANSWERS_MAX_BYTES = 32 * 1024 * 1024
ANSWERS_OF_USER_MAX_BYTES = 16 * 1024 * 1024


class QueryServer:
    """Answers the requests on a service's queue, each on its own. The broker drops late ones.

    Bound: answers of 32 MB being made at a time, 16 MB for one user. Other requests wait; see `ByteBudget`. So reads of
    long histories cannot fill the process, or hold up what else it does.
    """

    def __init__(self, bus: Publisher, requests: Any, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self._bus = bus
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(requests)
        self._answer = answer
        self._budget = ByteBudget(ANSWERS_MAX_BYTES, ANSWERS_OF_USER_MAX_BYTES)

    async def handle(self, lines: list[Line]) -> None:
        """Answer a batch concurrently: the handler of `Bus.consume`."""
        async with asyncio.TaskGroup() as tasks:
            for line in lines:
                request = decode_request(line, self._decoder)
                if request is not None:
                    tasks.create_task(self._reply(request, line.reply_to or ""))

    async def _reply(self, request: ServiceRequest, reply_to: str) -> None:
        with correlation.request(request_id_of(request)), tracing.span(request.op, request.trace):
            await self._answer_one(request, reply_to)

    async def _answer_one(self, request: ServiceRequest, reply_to: str) -> None:
        most_bytes = request.answer_max_bytes
        try:
            async with self._budget.held(request.caller.user_id, most_bytes):
                sent = self._bus.reply(reply_to, await self._answer_line(request))
                if most_bytes > SMALL_ANSWER_BYTES:  # it is held here until the broker has it
                    with suppress(Unavailable):  # when the reply fails, the caller's deadline ends its wait
                        await sent
        except Refusal as refusal:  # too much is under way
            self._bus.reply(reply_to, refusal_line(request.id, refusal))

    async def _answer_line(self, request: ServiceRequest) -> bytes:
        started_s = time.perf_counter()
        outcome = "ok"
        try:
            answer = reply_line(request.id, await self._answer(request))
        except Refusal as refusal:
            outcome = refusal.code
            answer = refusal_line(request.id, refusal)
        except Unavailable as error:
            outcome = ErrorCode.UNAVAILABLE
            answer = refusal_line(request.id, unavailable(error))
        except Exception:  # one failing request must not stop the server
            outcome = ErrorCode.INTERNAL
            log.exception("query_failed", op=request.op)
            answer = refusal_line(request.id, Refusal(ErrorCode.INTERNAL, "internal server error"))
        metrics.COMMAND_SECONDS.labels(request.op, outcome).observe(time.perf_counter() - started_s)
        if logs.details:
            log.debug("query_answered", op=request.op, outcome=outcome)
        return answer
