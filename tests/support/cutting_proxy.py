"""A TCP proxy that cuts a WebSocket connection at a given point: before the n-th frame of either side, or inside it.

Each side's bytes are read as units: unit 0 is the head of the HTTP upgrade, units from 1 on are frames.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal
from urllib.parse import urlsplit

from tests.support.tcp_relay import Streams, relay

Side = Literal["client", "server"]
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class LinkCut:
    """Cut after this many units of a side and, if `is_partial`, half of the next one."""

    side: Side
    units: int
    is_partial: bool

    def __str__(self) -> str:
        return f"{self.side}-{self.units}{'-partial' if self.is_partial else ''}"


class Units:
    """The boundaries of one side's units."""

    def __init__(self) -> None:
        self._waiting = b""
        self.count = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Process received bytes, and return the units that are complete."""
        self._waiting += data
        units = []
        while (size := self._size()) is not None and len(self._waiting) >= size:
            units.append(self._waiting[:size])
            self._waiting = self._waiting[size:]
            self.count += 1
        return units

    def _size(self) -> int | None:
        if self.count == 0:
            end = self._waiting.find(b"\r\n\r\n")
            return None if end < 0 else end + 4
        if len(self._waiting) < 2:
            return None
        length = self._waiting[1] & 0x7F
        extra = {126: 2, 127: 8}.get(length, 0)
        if len(self._waiting) < 2 + extra:
            return None
        if extra:
            length = int.from_bytes(self._waiting[2 : 2 + extra])
        return 2 + extra + (4 if self._waiting[1] & 0x80 else 0) + length


class CuttingProxy:
    """Cuts connections by plan.

    `plan` holds one cut for each future connection; later ones pass uncut. `refuses` closes new connections at once.
    `swallows` drops everything from the server.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._links: set[asyncio.WriteTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.plan: list[LinkCut] = []
        self.refuses = False
        self.swallows = False
        self.cuts = 0
        self.connections = 0
        self.url = ""

    def cut_all(self) -> None:
        """Cut every connection now."""
        for transport in list(self._links):
            transport.abort()
        self.cuts += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a client."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if not self.refuses:
                cut = self.plan.pop(0) if self.plan else None
                await self._relay(reader, writer, cut)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: LinkCut | None) -> None:
        links = {writer.transport}

        async def connect() -> Streams:
            server = Streams(*await asyncio.open_connection(*self._upstream))
            links.add(server.writer.transport)
            self._links |= links
            return server

        to_server, to_client = partial(self._pass, side="client", cut=cut), partial(self._pass, side="server", cut=cut)
        try:
            await relay(Streams(reader, writer), connect(), to_server, to_client)
        finally:
            self._links -= links

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, side: Side, cut: LinkCut | None
    ) -> None:
        """Forward data until the side ends or the cut."""
        if cut is not None and cut.side != side:
            cut = None
        units, passed = Units(), 0
        with suppress(OSError):
            while data := await source.read(_READ_BYTES):
                if self.swallows and side == "server":
                    continue
                for unit in [data] if cut is None else units.feed(data):
                    is_last = cut is not None and passed == cut.units
                    if not is_last:
                        sink.write(unit)
                    elif cut is not None and cut.is_partial:
                        sink.write(unit[: len(unit) // 2])
                    await sink.drain()
                    if is_last:
                        self.cuts += 1
                        return
                    passed += 1


@asynccontextmanager
async def cutting_proxy(upstream: str) -> AsyncIterator[CuttingProxy]:
    """Yield a proxy on a free port in front of `upstream`; every connection is cut at the end."""
    proxy = CuttingProxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut_all()
        await asyncio.gather(*proxy._tasks, return_exceptions=True)
        await server.wait_closed()
