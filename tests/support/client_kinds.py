"""Both client libraries behind one interface, so that one suite covers both.

The Python client runs in this event loop, the JavaScript clients in a Node process. Option names are those on the wire.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from realtime_client import ClientOptions, RealtimeClient, RequestFailed
from tests.support.node import OPTIONS, node
from tests.support.waiting import until

HOST = Path(__file__).parents[1] / "e2e" / "client_host.mjs"
LINE_MAX_BYTES = 16 * 1024 * 1024
FIRST_BACKOFF_S = 0.02  # short, since tests cut connections all the time
BACKOFF_MAX_S = 0.5
TIMEOUT_S = 60.0

Seen = list[tuple[str, Any]]


class ClientUnderTest(Protocol):
    """The interface that the suite needs. `seen` holds every event so far with its data."""

    seen: Seen

    async def subscribe(self, channel: str, **options: Any) -> Any: ...
    async def unsubscribe(self, channel: str, **options: Any) -> Any: ...
    async def send_message(self, chatroom_id: str, message: str) -> Any: ...
    async def send_direct(self, user_id: str, message: str) -> Any: ...


Connect = Callable[[str, str], AbstractAsyncContextManager[ClientUnderTest]]  # url, token


def data_of(client: ClientUnderTest, type_: str) -> list[Any]:
    """Return the data of all events of a type."""
    return [data for name, data in client.seen if name == type_]


async def seen(client: ClientUnderTest, type_: str, count: int = 1) -> list[Any]:
    """Return the data of the events of a type once there are `count`."""
    await until(lambda: len(data_of(client, type_)) >= count, TIMEOUT_S)
    return data_of(client, type_)


# Python ---------------------------------------------------------------------------------------------------------------


class _PythonClient:
    def __init__(self, client: RealtimeClient) -> None:
        self.seen: Seen = []
        self._client = client
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for type_, data in self._client.events():
            self.seen.append((type_, data))

    async def subscribe(self, channel: str, **options: Any) -> Any:
        return await self._client.subscribe(channel, **_snake(options))

    async def unsubscribe(self, channel: str, **options: Any) -> Any:
        return await self._client.unsubscribe(channel, **_snake(options))

    async def send_message(self, chatroom_id: str, message: str) -> Any:
        return await self._client.send_message(chatroom_id, message)

    async def send_direct(self, user_id: str, message: str) -> Any:
        return await self._client.send_direct(user_id, message)

    async def ended(self) -> None:
        """Wait until every event, the last included, has been seen."""
        await self._listening


def _snake(options: dict[str, Any]) -> dict[str, Any]:
    names = {"chatroomId": "chatroom_id", "userId": "user_id", "maxRate": "max_rate", "communityId": "community_id"}
    return {names.get(name, name): value for name, value in options.items()}


@asynccontextmanager
async def python_client(url: str, token: str) -> AsyncIterator[ClientUnderTest]:
    """Yield a client of realtime_client."""
    options = ClientOptions(backoff_first_s=FIRST_BACKOFF_S, backoff_max_s=BACKOFF_MAX_S)
    client = RealtimeClient(url, token, options=options)
    shown = _PythonClient(client)
    async with client:
        yield shown
    await shown.ended()


# JavaScript -----------------------------------------------------------------------------------------------------------


class NodeHost:
    """A Node process with any number of clients; see client_host.mjs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._calls = itertools.count(1)
        self._names = itertools.count(1)
        self._results: dict[int, asyncio.Future[Any]] = {}
        self._seen: dict[str, Seen] = {}
        self.reading = asyncio.create_task(self._read())

    async def call(self, client: str, what: str, *args: Any) -> Any:
        """Call a method of a client. Raises RequestFailed with the rejection of its promise."""
        assert self._process.stdin is not None
        number = next(self._calls)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._results[number] = future
        line = {"call": number, "client": client, "do": what, "args": args}
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        return await future

    async def make(self, what: str, *args: Any) -> "WebClient":
        """Create a client: `new` with url, token and options, or `published` with a token."""
        name = f"client-{next(self._names)}"
        seen = self._seen.setdefault(name, [])
        await self.call(name, what, *args)
        return WebClient(self, name, seen)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            printed = json.loads(line)
            if printed["type"] == "event":
                self._seen[printed["client"]].append((printed["event"], printed["data"]))
                continue
            future = self._results.pop(printed["call"])
            if "error" in printed:
                error = printed["error"]
                future.set_exception(
                    RequestFailed(
                        error["code"], error["message"], retryable=error["retryable"], close_code=error["closeCode"]
                    )
                )
            else:
                future.set_result(printed["data"])


class WebClient:
    """One client in a Node process."""

    def __init__(self, host: NodeHost, name: str, seen: Seen) -> None:
        self.seen = seen
        self._host = host
        self._name = name

    async def call(self, what: str, *args: Any) -> Any:
        """Call any method."""
        return await self._host.call(self._name, what, *args)

    async def subscribe(self, channel: str, **options: Any) -> Any:
        return await self.call("subscribe", channel, options)

    async def unsubscribe(self, channel: str, **options: Any) -> Any:
        return await self.call("unsubscribe", channel, options)

    async def send_message(self, chatroom_id: str, message: str) -> Any:
        return await self.call("sendMessage", chatroom_id, message)

    async def send_direct(self, user_id: str, message: str) -> Any:
        return await self.call("sendDirect", user_id, message)


@asynccontextmanager
async def node_host(**environment: str) -> AsyncIterator[NodeHost]:
    """Yield a Node process for web clients, or skip the test without Node."""
    process = await asyncio.create_subprocess_exec(
        *(node(), *OPTIONS, str(HOST)),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_MAX_BYTES,
    )
    host = NodeHost(process)
    try:
        yield host
    finally:
        process.kill()
        await process.wait()
        await host.reading


def web_client(host: NodeHost) -> Connect:
    """Return a factory of gateway/web clients in that process."""

    @asynccontextmanager
    async def connect(url: str, token: str) -> AsyncIterator[ClientUnderTest]:
        options = {"backoffFirstMs": FIRST_BACKOFF_S * 1000, "backoffMaxMs": BACKOFF_MAX_S * 1000}
        client = await host.make("new", url, token, options)
        try:
            yield client
        finally:
            await client.call("close")

    return connect


async def within(timeout_s: float, client: ClientUnderTest, awaited: Awaitable[Any]) -> Any:
    """Await with a deadline; the failure shows the frames that the client has received."""
    try:
        async with asyncio.timeout(timeout_s):
            return await awaited
    except TimeoutError:
        raise TimeoutError(f"after {timeout_s} s; the client has seen {client.seen}") from None
