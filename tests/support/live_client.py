"""A WebSocket client and a REST client for tests that use only the published protocol."""

import asyncio
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.tokens import SECRET, mint

TIMEOUT_S = 10.0

Frame = dict[str, Any]


class SocketClosed(Exception):
    """The server closed the socket; `code` is its close code."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class LiveClient:
    """One socket. Frames are taken from `frames` in order of arrival; every wait has a deadline."""

    def __init__(self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._http = http
        self._ws = ws
        self._ids = 0
        self._reader = asyncio.create_task(self._read())
        self._arrived = asyncio.Condition()
        self.frames: list[Frame] = []
        self.code: int | None = None
        self.is_closed = False

    @classmethod
    async def open(cls, url: str, **options: Any) -> Self:
        """Connect to a gateway, for example http://127.0.0.1:8080, without authenticating."""
        http = aiohttp.ClientSession()
        try:
            return cls(http, await http.ws_connect(f"{url}/v1/live", autoclose=True, **options))
        except BaseException:
            await http.close()
            raise

    @classmethod
    async def as_user(cls, url: str, user_id: str, *, secret: str = SECRET, **claims: Any) -> Self:
        """Connect and authenticate."""
        client = await cls.open(url)
        try:
            await client.send("auth", token=mint(user_id, secret=secret, **claims))
            await client.next("auth:ok")
        except BaseException:
            await client.close()
            raise
        return client

    async def send(self, type_: str, **fields: Any) -> None:
        """Send a frame."""
        await self._ws.send_json({"type": type_, **fields})

    async def send_text(self, text: str) -> None:
        """Send any text."""
        await self._ws.send_str(text)

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        await self._ws.send_bytes(data)

    async def ask(self, type_: str, **fields: Any) -> Frame:
        """Send a frame with an id and return its answer, which may be an error frame."""
        self._ids += 1
        wanted = f"ask-{self._ids}"
        await self.send(type_, id=wanted, **fields)
        return await self.take(lambda frame: frame.get("id") == wanted)

    async def next(self, type_: str, *, timeout_s: float = TIMEOUT_S) -> Frame:
        """Return the next frame of a type, which may have arrived already."""
        return await self.take(lambda frame: frame["type"] == type_, timeout_s=timeout_s)

    async def data(self, type_: str, *, timeout_s: float = TIMEOUT_S) -> Any:
        """Return the data of the next frame of a type."""
        return (await self.next(type_, timeout_s=timeout_s))["data"]

    async def take(self, fits: Callable[[Frame], bool], *, timeout_s: float = TIMEOUT_S) -> Frame:
        """Return the first matching frame. Raises SocketClosed, or TimeoutError with the frames that arrived."""
        try:
            async with asyncio.timeout(timeout_s), self._arrived:
                while True:
                    for index, frame in enumerate(self.frames):
                        if fits(frame):
                            return self.frames.pop(index)
                    if self.is_closed:
                        raise SocketClosed(self.code)
                    await self._arrived.wait()
        except TimeoutError:
            raise TimeoutError(f"not among {self.frames}") from None

    async def barrier(self) -> None:
        """Return once the server has handled every frame sent so far."""
        await self.ask("ping")

    async def close_code(self) -> int | None:
        """Wait until the server closes and return its code."""
        async with asyncio.timeout(TIMEOUT_S), self._arrived:
            await self._arrived.wait_for(lambda: self.is_closed)
        return self.code

    async def close(self) -> None:
        """Close this side."""
        await self._ws.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._http.close()

    async def _read(self) -> None:
        while True:
            message = await self._ws.receive()
            async with self._arrived:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self.frames.append(message.json())
                else:
                    self.code = self._ws.close_code
                    self.is_closed = True
                self._arrived.notify_all()
            if self.is_closed:
                return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class RestClient:
    """REST as one user. Returns the status and the decoded body."""

    def __init__(self, url: str, user_id: str, *, secret: str = SECRET, **claims: Any) -> None:
        self._url = url
        self._mint = partial(mint, user_id, secret=secret, **claims)  # per call: a soak outlives a token

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Send one request; `options` are aiohttp's, for example `json`."""
        async with aiohttp.ClientSession() as http:
            headers = {"Authorization": f"Bearer {self._mint()}"} | options.pop("headers", {})
            async with http.request(method, f"{self._url}{path}", headers=headers, **options) as response:
                return response.status, await response.json()

    async def data(self, method: str, path: str, **options: Any) -> Any:
        """Return the `data` of a success; fail on anything else."""
        status, body = await self.call(method, path, **options)
        assert status in (200, 201) and body["success"], body
        return body["data"]

    async def create_room(self, name: str = "Room", type_: str = "public", **fields: Any) -> str:
        """Create a room and return its id."""
        room = await self.data("POST", "/v1/chatrooms", json={"name": name, "type": type_, **fields})
        return str(room["id"])
