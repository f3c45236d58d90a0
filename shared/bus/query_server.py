"""The answer to service requests: a line in, a reply line out, and never a stack trace to the caller."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from shared.bus.consumer import Line
from shared.bus.publisher import Publisher
from shared.commands.command import ServiceRequest, refusal_line, reply_line, request_id_of
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


class QueryServer:
    """Answers the requests on a service's queue, each on its own. The broker drops late ones."""

    def __init__(self, bus: Publisher, requests: Any, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self._bus = bus
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(requests)
        self._answer = answer

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
        self._bus.reply(reply_to, answer)
