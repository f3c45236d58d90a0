"""WebSocket connections on aiohttp."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from realtime_client.protocol import ABNORMAL_CLOSURE, ServerClose

PATH = "/v1/live"
FRAME_MAX_BYTES = 4 * 1024 * 1024
CLOSE_TIMEOUT_S = 1.0
SERVICE_UNAVAILABLE = 503


class Disconnect(NamedTuple):
    """End of a connection, or of the attempt to open one. `retry_after_s` is the Retry-After of a refused upgrade."""

    code: int
    reason: str
    retry_after_s: float = 0.0


class WebSocketTransport:
    """Sockets to one address over one HTTP session. `tasks` owns the tasks that write to them."""

    def __init__(self, url: str, tasks: asyncio.TaskGroup) -> None:
        self._url = url
        self._tasks = tasks
        self._http: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Create the HTTP session. Requires a running event loop."""
        self._http = aiohttp.ClientSession()

    async def stop(self) -> None:
        """Close the HTTP session."""
        if self._http is not None:
            await self._http.close()

    async def run(
        self, outgoing: "asyncio.Queue[str]", on_open: Callable[[], None], on_text: Callable[[str], None]
    ) -> Disconnect:
        """Run one socket from its opening to its end, and return why it ended.

        The socket sends the texts of `outgoing` and passes each received text to `on_text`. Cancellation closes it
        within 1 s.
        """
        try:
            return await self._exchange(outgoing, on_open, on_text)
        except aiohttp.WSServerHandshakeError as error:
            reason = f"the server refused the upgrade with status {error.status}"
            if error.status == SERVICE_UNAVAILABLE:
                return Disconnect(ServerClose.OVERLOADED, reason, _retry_after_s(error))
            return Disconnect(ABNORMAL_CLOSURE, reason)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Disconnect(ABNORMAL_CLOSURE, str(error) or type(error).__name__)

    async def _exchange(
        self, outgoing: "asyncio.Queue[str]", on_open: Callable[[], None], on_text: Callable[[str], None]
    ) -> Disconnect:
        assert self._http is not None  # noqa: S101 - `start` precedes `run`
        timeout = aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S)
        async with self._http.ws_connect(self._url, timeout=timeout, max_msg_size=FRAME_MAX_BYTES) as ws:
            on_open()
            writing = self._tasks.create_task(_write(ws, outgoing))
            try:
                await _read(ws, on_text)
            finally:
                writing.cancel()
            return Disconnect(ws.close_code or ABNORMAL_CLOSURE, _failure_of(ws))


def live_url(url: str) -> str:
    """Return the WebSocket address for ws(s)://host/path or http(s)://host. Raises ValueError for any other URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not the address of a gateway")
    path = PATH if parts.path in ("", "/") else parts.path
    return urlunsplit(parts._replace(scheme=parts.scheme.replace("http", "ws", 1), path=path))


async def _read(ws: aiohttp.ClientWebSocketResponse, on_text: Callable[[str], None]) -> None:
    async for message in ws:
        if message.type is aiohttp.WSMsgType.TEXT:
            on_text(message.data)


async def _write(ws: aiohttp.ClientWebSocketResponse, outgoing: "asyncio.Queue[str]") -> None:
    """Write until the socket breaks; the reader reports the failure."""
    with suppress(aiohttp.ClientError, OSError):
        while True:
            await ws.send_str(await outgoing.get())


def _failure_of(ws: aiohttp.ClientWebSocketResponse) -> str:
    error = ws.exception()
    return "" if error is None else str(error) or type(error).__name__


def _retry_after_s(error: aiohttp.WSServerHandshakeError) -> float:
    """Return the Retry-After of a refused upgrade in seconds, or 0 if it is missing or a date."""
    text = "" if error.headers is None else error.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
