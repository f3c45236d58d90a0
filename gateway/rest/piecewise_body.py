"""Large answers, written in pieces as the client reads them and held against the budget of bytes under way."""

import asyncio
import weakref

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from shared.byte_budget import Hold

PIECE_BYTES = 64 * 1024
PIECE_TIMEOUT_S = 30.0


class PiecewiseBody(Payload):
    """The body of an answer in one `bytes` object. A client that reads no piece in 30 s is disconnected.

    Written at once, the body would be copied into the transport's buffer and stay there as long as the client likes.
    """

    def __init__(self, data: bytes, content_type: str, hold: Hold) -> None:
        super().__init__(data, content_type=content_type)
        self._size = len(data)
        self._hold = hold
        weakref.finalize(self, hold.release)  # when the answer is never written

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        data: bytes = self._value
        return data.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body. Raises ConnectionError."""
        data = memoryview(self._value)
        try:
            for start in range(0, len(data), PIECE_BYTES):
                async with asyncio.timeout(PIECE_TIMEOUT_S):
                    await writer.write(data[start : start + PIECE_BYTES])
                    await writer.drain()
        except TimeoutError:
            raise ConnectionResetError("the client does not read its answer") from None
        finally:
            self._value = b""  # aiohttp keeps the answer until the connection's next request
            self._hold.release()


def hold_until_written(response: web.Response, hold: Hold) -> None:
    """Release the hold once the response is written; at once if it is small."""
    data = response.body
    if not isinstance(data, bytes) or len(data) <= PIECE_BYTES:
        hold.release()
        return
    hold.resize(len(data))
    response.body = PiecewiseBody(data, response.headers["Content-Type"], hold)
