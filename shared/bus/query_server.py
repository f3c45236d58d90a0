"""The server of service requests: a line in, a reply line out, and never a stack trace to the caller."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from shared.bus.consumer import Line
from shared.bus.publisher import Publisher
from shared.byte_budget import ByteBudget
from shared.commands.command import GATEWAY, SMALL_ANSWER_BYTES, ServiceRequest, refusal_line, reply_line, request_id_of
from shared.errors import ErrorCode, Malformed, Refusal, Unavailable
from shared.protocol.validation import decode
from shared.telemetry import correlation, logs, metrics, tracing

log = logs.get(__name__)


def decode_request(line: Line, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """Return the request of a line. Reject a line without a valid one, and return None."""
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

    Bound on large answers in progress: 32 MB for users (16 MB per user) and 32 MB for gateways; others wait, see
    `ByteBudget`. They wait outside the batches of the queue, so small requests never wait for large ones.
    """

    def __init__(self, bus: Publisher, requests: Any, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self._bus = bus
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(requests)
        self._answer = answer
        self._of_users = ByteBudget("users", ANSWERS_MAX_BYTES, ANSWERS_OF_USER_MAX_BYTES)
        self._of_gateways = ByteBudget("gateways", ANSWERS_MAX_BYTES, ANSWERS_MAX_BYTES)

    async def handle(self, lines: list[Line]) -> None:
        """Answer a batch concurrently: the handler of `Bus.consume`."""
        async with asyncio.TaskGroup() as tasks:
            for line in lines:
                request: ServiceRequest | None = decode_request(line, self._decoder)
                if request is None:
                    continue
                if request.answer_estimate_bytes <= SMALL_ANSWER_BYTES:
                    tasks.create_task(self._traced(request, self._answer_small(request, line.reply_to or "")))
                    continue
                self._bus.spawn(self._traced(request, self._answer_large(request, line.reply_to or "")))

    async def _traced(self, request: ServiceRequest, work: Coroutine[Any, Any, None]) -> None:
        with correlation.request(request_id_of(request)), tracing.span(request.op, request.trace):
            await work

    async def _answer_small(self, request: ServiceRequest, reply_to: str) -> None:
        self._bus.reply(reply_to, await self._answer_line(request))

    async def _answer_large(self, request: ServiceRequest, reply_to: str) -> None:
        budget = self._of_gateways if request.caller == GATEWAY else self._of_users
        try:
            async with budget.held(request.caller.user_id, request.answer_estimate_bytes) as hold:
                answer = await self._answer_line(request)
                hold.resize(len(answer))
                with suppress(Unavailable):  # when the reply fails, the caller's deadline ends its wait
                    await self._bus.reply(reply_to, answer)  # the bytes are held until the broker has the reply
        except Refusal as refusal:  # the budget is used up
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
