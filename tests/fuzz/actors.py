"""Concurrent actors: hostile sockets, connections and callers, and two well-behaved clients."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp

from tests.fuzz.checks import GatewayMisbehaved, check_close, check_frame, check_response, check_status
from tests.fuzz.material import Material

ANSWER_TIMEOUT_S = 20.0
FRAMES_MAX = 60
CONTROL_PAUSE_S = 0.05
PING_EVERY = 50
REFUSED_PAUSE_S = 0.2


class SocketFuzzer:
    """One well-formed WebSocket at a time with frames of every kind, from a user whose answers are checked."""

    def __init__(self, material: Material, url: str, http: aiohttp.ClientSession, token: str) -> None:
        self._material = material
        self._random = material.random
        self._url = url
        self._http = http
        self._token = token
        self._answered = asyncio.Event()
        self.sent = 0

    async def once(self) -> None:
        """Run one socket until everything sent is processed or it is closed. Raises GatewayMisbehaved."""
        try:
            await self._once(self._random.choice([0, 0, 15]))
        except* aiohttp.WSServerHandshakeError as group:
            for error in group.exceptions:
                if isinstance(error, aiohttp.WSServerHandshakeError) and error.status not in (429, 503):
                    raise GatewayMisbehaved(f"a good upgrade was refused with {error.status}") from None
            await asyncio.sleep(REFUSED_PAUSE_S)
        except* (ConnectionError, aiohttp.ClientConnectionError):
            pass

    async def _once(self, compress: int) -> None:
        async with (
            self._http.ws_connect(f"{self._url}/v1/live", compress=compress, max_msg_size=0) as ws,
            asyncio.TaskGroup() as tasks,
        ):
            reading = tasks.create_task(self._read(ws))
            await self._write(ws)
            answered = tasks.create_task(self._answered.wait())
            await asyncio.wait([reading, answered], timeout=ANSWER_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not self._answered.is_set() and not reading.done():
                raise GatewayMisbehaved("a socket is not answered any more")
            self._answered.set()
            await ws.close()

    async def _write(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._answered.clear()
        material = self._material
        with suppress(ConnectionError, aiohttp.ClientError):
            if self._random.random() < 0.95:
                subscriptions = [material.target() for _ in range(self._random.randrange(6))]
                await ws.send_json({"type": "auth", "token": self._token, "subscriptions": subscriptions})
            for _ in range(self._random.randrange(FRAMES_MAX)):
                text = material.text()
                if ws.closed:
                    return
                with suppress(UnicodeEncodeError):
                    await ws.send_str(text)
                    self.sent += 1
            await ws.send_json({"type": "ping", "id": "the last one"})

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise GatewayMisbehaved(f"a frame of type {message.type}")
            frame = check_frame(message.data)
            self._material.saw(frame)
            if frame.get("id") == "the last one":
                self._answered.set()
        check_close(ws.close_code if ws.close_code != 1006 else None)


class CallFuzzer:
    """REST calls of every kind, one after another."""

    def __init__(self, material: Material, url: str, http: aiohttp.ClientSession, token: str) -> None:
        self._material = material
        self._url = url
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}
        self.sent = 0

    async def once(self) -> None:
        """Make one call. Raises GatewayMisbehaved."""
        random = self._material.random
        method, path, body = self._material.call()
        headers = {**self._headers, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        if random.random() < 0.1:
            data = self._material.text().encode(errors="surrogatepass")
        if random.random() < 0.05:
            headers["Authorization"] = random.choice(["Bearer", "Bearer x.y.z", "Basic eA==", "Bearer \x00"]).strip(
                "\x00"
            )
        if random.random() < 0.05:
            headers["Content-Type"] = random.choice(["text/html", "application/json; charset=x", "a"])
        self.sent += 1
        try:
            async with self._http.request(method, self._url + path, data=data, headers=headers) as response:
                answer = await response.read()
                if not response.url.path.startswith("/v1/"):  # dot segments led to the web page
                    check_status(response.status, path)
                elif method != "HEAD":
                    check_response(response.status, answer, f"{method} {path[:100]} {str(data)[:200]}")
        except aiohttp.ClientConnectionError:  # refused before it was read completely, such as an oversized body
            pass


class Control:
    """Two well-behaved clients: the listener receives everything from the sender, once and in order."""

    def __init__(self, url: str, http: aiohttp.ClientSession, room: str, tokens: tuple[str, str]) -> None:
        self._url = url
        self._http = http
        self._room = room
        self._tokens = tokens
        self.said = 0
        self.answered = 0
        self.slowest_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Send and listen until `stop`. Raises GatewayMisbehaved."""
        async with await self._connect(self._tokens[0]) as speaker, await self._connect(self._tokens[1]) as listener:
            clock_s = asyncio.get_running_loop().time
            while not stop.is_set():
                self.said += 1
                began_s = clock_s()
                await self._say(speaker)
                for ws in (speaker, listener):
                    message = await self._next_message(ws)
                    if message != str(self.said):
                        raise GatewayMisbehaved(f"the control client received {message!r} instead of {self.said}")
                self.answered += 1
                self.slowest_s = max(self.slowest_s, clock_s() - began_s)
                if not self.said % PING_EVERY:  # a silent listener would be closed after 60 s
                    await listener.send_json({"type": "ping"})
                await asyncio.sleep(CONTROL_PAUSE_S)

    async def _say(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Send this turn's message, for the first time or again."""
        text = str(self.said)
        frame = {"type": "chat:send", "chatroomId": self._room, "message": text, "clientMessageId": text}
        await ws.send_json(frame)

    async def _connect(self, token: str) -> aiohttp.ClientWebSocketResponse:
        ws = await self._http.ws_connect(f"{self._url}/v1/live")
        entry = {"channel": "chatroom", "chatroomId": self._room}
        await ws.send_json({"type": "auth", "token": token, "subscriptions": [entry]})
        await self._next(ws, "subscribed")
        return ws

    async def _next_message(self, ws: aiohttp.ClientWebSocketResponse) -> str:
        while True:
            data = (await self._next(ws, "chat:message"))["data"]
            if data["chatroomId"] == self._room:
                return str(data["message"])

    async def _next(self, ws: aiohttp.ClientWebSocketResponse, type_: str) -> Any:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while True:
                message = await ws.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise GatewayMisbehaved(f"the control client was closed with {ws.close_code}: {message.data!r}")
                frame = check_frame(message.data)
                if frame["type"] == "error":
                    if not frame["data"]["retryable"]:
                        raise GatewayMisbehaved(f"the control client was refused: {frame}")
                    await self._say(ws)  # resend as a client should: a busy machine is not a fault
                if frame["type"] == type_:
                    return frame


async def again_and_again(once: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Repeat until `stop`, with a deadline per iteration, so that a hang is noticed."""
    while not stop.is_set():
        try:
            async with asyncio.timeout(3 * ANSWER_TIMEOUT_S):
                await once()
        except TimeoutError:
            raise GatewayMisbehaved(f"{once.__qualname__} hangs") from None
        await asyncio.sleep(0)
