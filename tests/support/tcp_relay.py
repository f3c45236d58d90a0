"""The two-way copy of a TCP proxy's connection."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import NamedTuple

Copy = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


class Streams(NamedTuple):
    """The two streams of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def relay(client: Streams, connecting: Awaitable[Streams], to_server: Copy, to_client: Copy) -> None:
    """Copy both ways until one side ends, then abort both connections. Without a server, abort the client's."""
    ends = [client]
    try:
        server = await connecting
        ends.append(server)
        copying = {
            asyncio.create_task(to_server(client.reader, server.writer)),
            asyncio.create_task(to_client(server.reader, client.writer)),
        }
        try:
            await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in copying:
                one.cancel()
            await asyncio.gather(*copying, return_exceptions=True)
    except OSError:
        pass  # the server is down, so the client loses its connection
    finally:
        for end in ends:
            end.writer.transport.abort()
