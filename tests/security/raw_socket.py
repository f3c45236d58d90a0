"""A WebSocket client that sends any bytes, valid or not, and reports how the server ended the connection."""

import asyncio
import json
import os
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.bench.wire import CLOSE, TEXT, FrameScanner
from tests.support.tokens import mint

TIMEOUT_S = 15.0
DEFLATE = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"


def raw_frame(
    payload: bytes = b"",
    opcode: int = TEXT,
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """Return a client frame with any bits; `length` is the length in its head, for any payload."""
    size = len(payload) if length is None else length
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, mask_bit | size))
    elif size < 65_536:
        head = bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    repeated = mask * (len(payload) // 4 + 1)
    return head + mask + bytes(byte ^ key for byte, key in zip(payload, repeated, strict=False))


def text_frame(type_: str, **fields: Any) -> bytes:
    """Return a valid text frame."""
    return raw_frame(json.dumps({"type": type_, **fields}).encode())


class RawSocket:
    """One TCP connection. `said` keeps all bytes from the server, which never hold a stack trace."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.said = bytearray()
        self.head = b""
        self._scanner = FrameScanner()
        self._texts: list[dict[str, Any]] = []
        self.code: int | None = None

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect and send nothing."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    @classmethod
    async def upgraded(cls, url: str, *headers: str) -> Self:
        """Connect a WebSocket that is not authenticated."""
        made = await cls.connect(url)
        lines = [
            *("GET /v1/live HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"),
            *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers, "", ""),
        ]
        made.writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(TIMEOUT_S):
            made.head = await made.reader.readuntil(b"\r\n\r\n")
        assert made.head.startswith(b"HTTP/1.1 101"), made.head
        assert b"aiohttp" not in made.head
        return made

    @classmethod
    async def as_user(cls, url: str, user_id: str, *headers: str) -> Self:
        """Connect and authenticate a WebSocket."""
        made = await cls.upgraded(url, *headers)
        made.send(text_frame("auth", token=mint(user_id)))
        await made.next("auth:ok")
        return made

    def send(self, data: bytes) -> None:
        """Send bytes unchanged."""
        if not self.writer.is_closing():
            self.writer.write(data)

    async def send_all(self, data: bytes) -> None:
        """Send bytes as fast as the server reads them, until it hangs up."""
        try:
            self.send(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def next(self, type_: str) -> dict[str, Any]:
        """Return the next frame of a type. Raises AssertionError if the server closes instead."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                for index, frame in enumerate(self._texts):
                    if frame["type"] == type_:
                        return self._texts.pop(index)
                assert await self._read(), f"closed with {self.code}"

    async def close_code(self) -> int | None:
        """Read to the end. Return the code of the server's close frame; None without one."""
        async with asyncio.timeout(TIMEOUT_S):
            while await self._read():
                pass
        return self.code

    async def rest(self) -> bytes:
        """Return all bytes until the server hangs up."""
        async with asyncio.timeout(TIMEOUT_S):
            while await self._read_bytes():
                pass
        return bytes(self.said)

    async def _read_bytes(self) -> bytes:
        try:
            data = await self.reader.read(65_536)
        except ConnectionError:
            data = b""
        self.said += data
        assert b"Traceback" not in self.said
        assert b"aiohttp" not in self.said
        return data

    async def _read(self) -> bool:
        data = await self._read_bytes()
        for frame in self._scanner.feed(data):
            if frame.opcode == CLOSE:
                self.code = int.from_bytes(frame.payload[:2], "big")
            elif frame.opcode == TEXT:
                self._texts.append(json.loads(frame.payload))
        return bool(data)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
