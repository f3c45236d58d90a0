"""Large answers, written in pieces as the client reads, with their bytes reserved in a `ByteBudget` until written."""

import asyncio
import weakref
from collections.abc import Callable
from functools import partial

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from shared.byte_budget import Hold

PIECE_BYTES = 64 * 1024
PIECE_TIMEOUT_S = 30.0


class PiecewiseBody(Payload):
    """The body of an answer in one `bytes` object. A client that reads no piece in 30 s is disconnected.

    Written at once, the body would be copied into the transport's buffer and stay there as long as the client likes.
    """

    def __init__(self, data: bytes, content_type: str, hold: Hold, disconnect: Callable[[], object]) -> None:
        super().__init__(data, content_type=content_type)
        self._size = len(data)
        self._hold = hold
        self._disconnect = disconnect
        weakref.finalize(self, hold.release)  # when the answer is never written

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        data: bytes = self._value
        return data.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body. Raises ConnectionError."""
        data = memoryview(self._value)
        self._hold.begin_sending(self._disconnect)
        try:
            for start in range(0, len(data), PIECE_BYTES):
                async with asyncio.timeout(PIECE_TIMEOUT_S):
                    await writer.write(data[start : start + PIECE_BYTES])
                    await writer.drain()
                self._hold.sent(PIECE_BYTES)
        except TimeoutError:
            self._disconnect()  # a close would wait for the client to read the buffer
            raise ConnectionResetError("the client does not read its answer") from None
        finally:
            self._value = b""  # aiohttp keeps the answer until the connection's next request
            self._hold.release()


def hold_until_written(request: web.Request, response: web.Response, hold: Hold) -> None:
    """Release the hold once the response is written; at once if it is small or without a body."""
    data = response.body
    if not isinstance(data, bytes) or len(data) <= PIECE_BYTES or request.method == hdrs.METH_HEAD:
        hold.release()
        return
    hold.resize(len(data))
    response.body = PiecewiseBody(data, response.headers["Content-Type"], hold, partial(disconnect, request))


def disconnect(request: web.Request) -> None:
    """Drop the connection of a request, and the contents of its buffer."""
    if request.transport is not None:
        request.transport.abort()
