"""Connections that are refused: each is answered with its refusal, regardless of its request, and closed."""

import asyncio
from typing import cast

from aiohttp import hdrs

from gateway.admission.refused import Refused
from gateway.rest.envelope import failure
from shared.errors import HTTP_STATUS

REFUSING_MAX = 32
REFUSAL_TIMEOUT_S = 2.0


class Refusals:
    """The connections that are being refused. Bound: 32; `protocol` then returns None, and the caller closes."""

    def __init__(self) -> None:
        self._count = 0

    def protocol(self, refused: Refused) -> "RefusingProtocol | None":
        """Return the protocol that answers a connection."""
        if self._count >= REFUSING_MAX:
            return None
        self._count += 1
        return RefusingProtocol(refused, self)

    def ended(self) -> None:
        """Stop counting a connection that has closed."""
        self._count -= 1


class RefusingProtocol(asyncio.Protocol):
    """Answers the first bytes with the failure envelope. It then reads until the client closes, for at most 2 s.

    A connection that is closed with unread input would be reset, and its client would not see the answer.
    """

    __slots__ = ("_answer", "_refusals", "_timer", "_transport")

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, refused: Refused, refusals: Refusals) -> None:
        self._answer = _answer(refused)
        self._refusals = refusals

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the request."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(REFUSAL_TIMEOUT_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer, once."""
        if self._answer:
            self._transport.write(self._answer)
            self._transport.write_eof()
            self._answer = b""

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._timer.cancel()
        self._refusals.ended()

    def abandoned(self) -> None:
        """Stop counting a connection that could not be opened."""
        self._refusals.ended()


def _answer(refused: Refused) -> bytes:
    response = failure(refused, HTTP_STATUS[refused.code])
    body = response.body
    assert isinstance(body, bytes)  # noqa: S101 - an envelope is bytes
    headers = {**response.headers, hdrs.CONTENT_LENGTH: str(len(body)), hdrs.CONNECTION: "close"}
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode() + body
