"""The client's shell: sockets, tokens, timers and futures around the pure core."""

import asyncio
import inspect
import logging
import math
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, assert_never
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakSet

import aiohttp

from realtime_client.core import Core, Fail, Settle
from realtime_client.link import (
    ABNORMAL,
    ClientOptions,
    Drop,
    Emit,
    FetchToken,
    Open,
    Send,
    State,
    Stats,
    TokenReason,
)
from realtime_client.protocol import SUBSCRIPTIONS, ServerClose
from realtime_client.requests import RequestFailed

log = logging.getLogger(__name__)

PATH = "/v1/live"
FRAME_MAX_BYTES = 4 * 1024 * 1024
CLOSE_TIMEOUT_S = 1.0
EVENTS_MAX = 10_000

TokenSource = Callable[[TokenReason], Awaitable[str]]
Handler = Callable[[Any], None]


class Event(NamedTuple):
    """What has come: the frame's type and its data, as published."""

    type: str
    data: Any


class EventsOverflow(Exception):
    """An iterator over events was left alone until more had gathered than it keeps."""


class RealtimeClient:
    """A connection that lasts; see the package's docstring. Used as an async context manager, in one event loop."""

    def __init__(self, url: str, token: str | TokenSource, *, options: ClientOptions | None = None) -> None:
        """`url` is ws(s)://host/v1/live or http(s)://host. `token` is a JWT, or fetches one for the reason given."""
        self.url = _address_of(url)
        self._fetch = token if callable(token) else None
        self._core = Core(
            options or ClientOptions(),
            random.random,
            token=token if isinstance(token, str) else None,
            can_refresh=self._fetch is not None,
        )
        self._handlers: dict[str, list[Handler]] = {}
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._streams: WeakSet[_Stream] = WeakSet()
        self._settled = asyncio.Event()  # open, or closed
        self._outgoing: asyncio.Queue[str] | None = None
        self._socket: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_stepping = False
        self._tasks = asyncio.TaskGroup()
        self._http: aiohttp.ClientSession | None = None

    @property
    def state(self) -> State:
        """Of the connection."""
        return self._core.state

    @property
    def stats(self) -> Stats:
        """Since the client was made."""
        return self._core.stats

    # Life ------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._http = aiohttp.ClientSession()
        self._step(lambda now_s: self._core.link.connect(now_s))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step(lambda _: self._core.link.close())
        if self._fetching is not None:
            self._fetching.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            if self._http is not None:
                await self._http.close()

    async def connected(self) -> None:
        """Wait until the connection is open. Raises RequestFailed (CLOSED) if it may not come about."""
        await self._settled.wait()
        if self.state is State.CLOSED:
            raise RequestFailed("CLOSED", "the client is closed")

    def connect(self) -> None:
        """Connect again, after the client has closed: with another token, say."""
        self._step(lambda now_s: self._core.link.connect(now_s))

    def set_token(self, token: str) -> None:
        """Use this token from now on; an open connection is renewed with it."""
        self._step(lambda now_s: self._core.link.token_ready(token, now_s))

    def wake(self) -> None:
        """The network is known to be back: do not wait any longer."""
        self._step(lambda now_s: self._core.link.wake(now_s))

    # Events ----------------------------------------------------------------------------------------------------------

    def on(self, type_: str, handler: Handler) -> Callable[[], None]:
        """Call `handler(data)` with each event of a type, in order; it must not wait. Returns what removes it.

        A handler that raises is logged and does no harm to others.
        """
        if inspect.iscoroutinefunction(handler):
            raise TypeError("a handler must not wait: iterate over events() instead")
        self._handlers.setdefault(type_, []).append(handler)
        return lambda: self.off(type_, handler)

    def off(self, type_: str, handler: Handler | None = None) -> None:
        """Remove a handler, or all of a type."""
        if handler is None:
            self._handlers.pop(type_, None)
        else:
            with suppress(ValueError):
                self._handlers.get(type_, []).remove(handler)

    def events(self, *types: str) -> AsyncIterator[Event]:
        """All events from this call on, or those of some types, until the client is closed. Raises EventsOverflow."""
        stream = _Stream(types)
        self._streams.add(stream)
        return stream

    # Requests --------------------------------------------------------------------------------------------------------

    async def subscribe(self, channel: str, **options: Any) -> Any:
        """Subscribe to "chatroom" (chatroom_id, since=None), "notifications" (since=None), "market" (symbols,
        max_rate=10.0) or "community" (community_id). Returns the `subscribed` data.

        It lasts until it is unsubscribed, over all connections. Raises RequestFailed.
        """
        target = SUBSCRIPTIONS[channel](**options)
        return await self._ask(lambda now_s: self._core.subscribe(target, now_s))

    async def unsubscribe(self, channel: str, **options: Any) -> Any:
        """Unsubscribe; same options."""
        target = SUBSCRIPTIONS[channel](**options)
        return await self._ask(lambda now_s: self._core.unsubscribe(target, now_s))

    async def send_message(self, chatroom_id: str, message: str, *, client_message_id: str | None = None) -> Any:
        """Send a message and return its `chat:ack` data: it is on disk. Raises RequestFailed.

        To give up waiting does not recall it.
        """
        frame = {"type": "chat:send", "chatroomId": chatroom_id, "message": message}
        return await self._send(frame, f"room {chatroom_id}", client_message_id)

    async def send_direct(self, user_id: str, message: str, *, client_message_id: str | None = None) -> Any:
        """Send a direct message and return its `chat:ack` data. Raises RequestFailed."""
        frame = {"type": "chat:direct", "userId": user_id, "message": message}
        return await self._send(frame, f"user {user_id}", client_message_id)

    async def mark_read(self, chatroom_id: str, seq: int) -> Any:
        """Everything up to `seq` has been read. Raises RequestFailed."""
        frame = {"type": "chat:read", "chatroomId": chatroom_id, "seq": seq}
        return await self._ask(lambda now_s: self._core.request(frame, now_s))

    async def presence(self, user_ids: Sequence[str]) -> Any:
        """Who of these is online: a list of {userId, status, lastSeenAt}. Raises RequestFailed."""
        frame = {"type": "presence:get", "userIds": list(user_ids)}
        return (await self._ask(lambda now_s: self._core.request(frame, now_s)))["users"]

    def typing(self, chatroom_id: str, is_typing: bool = True) -> bool:
        """Tell that the user types. False, and not sent, while there is no connection."""
        frame = {"type": "chat:typing", "chatroomId": chatroom_id, "isTyping": is_typing}
        sent: list[bool] = []
        self._step(lambda _: sent.append(self._core.send_now(frame)))
        return sent[0]

    async def _send(self, frame: dict[str, Any], lane: str, client_message_id: str | None) -> Any:
        frame["clientMessageId"] = client_message_id or secrets.token_hex(16)
        return await self._ask(lambda now_s: self._core.send_message(frame, lane, now_s))

    async def _ask(self, ask: Callable[[float], int]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def step(now_s: float) -> None:
            self._futures[ask(now_s)] = future

        self._step(step)
        return await future

    # The shell -------------------------------------------------------------------------------------------------------

    def _step(self, step: Callable[[float], None]) -> None:
        """Let the core decide, then do what it says; a handler that calls back in is not run in between."""
        loop = asyncio.get_running_loop()
        step(loop.time())
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while actions := self._core.take():
                for action in actions:
                    self._do(action)
        finally:
            self._is_stepping = False
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self._core.deadline_s(loop.time())
        self._timer = None if deadline_s == math.inf else loop.call_at(deadline_s, self._step, self._core.tick)

    def _do(self, action: Open | Send | Drop | FetchToken | Emit | Settle | Fail) -> None:
        match action:
            case Open(connection):
                self._outgoing = asyncio.Queue()
                self._socket = self._tasks.create_task(self._hold(connection, self._outgoing))
            case Send(text):
                if self._outgoing is not None:
                    self._outgoing.put_nowait(text)
            case Drop():
                if self._socket is not None:
                    self._socket.cancel()
                self._socket = self._outgoing = None
            case FetchToken(reason):
                self._fetching = self._tasks.create_task(self._fetch_token(reason))
            case Emit(type_, data):
                self._emit(Event(type_, data))
            case Settle(id_, data):
                self._settle(id_, lambda future: future.set_result(data))
            case Fail(id_, error):
                self._settle(id_, lambda future: future.set_exception(error))
            case _:
                assert_never(action)

    def _settle(self, id_: int, how: Callable[["asyncio.Future[Any]"], None]) -> None:
        future = self._futures.pop(id_)
        if not future.done():  # who waited may have given up
            how(future)

    def _emit(self, event: Event) -> None:
        if event.type == "state":
            is_settled = self.state in (State.OPEN, State.CLOSED)
            (self._settled.set if is_settled else self._settled.clear)()
        for handler in tuple(self._handlers.get(event.type, ())):
            try:
                handler(event.data)
            except Exception:  # the wall around one handler
                log.exception("handler of %r failed", event.type)
        for stream in list(self._streams):
            stream.put(event)
            if event.type == "state" and self.state is State.CLOSED:
                stream.end(StopAsyncIteration())

    async def _hold(self, connection: int, outgoing: "asyncio.Queue[str]") -> None:
        """One socket, from its opening to its end; reports all that happens to it."""
        code, reason, retry_after_s = ABNORMAL, "", 0.0
        try:
            code, reason = await self._talk(connection, outgoing)
        except aiohttp.WSServerHandshakeError as error:
            reason = f"the server answered {error.status}"
            if error.status == 503:
                code, retry_after_s = ServerClose.OVERLOADED, _seconds_of(error)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        self._step(lambda now_s: self._core.link.closed(connection, code, reason, now_s, retry_after_s))

    async def _talk(self, connection: int, outgoing: "asyncio.Queue[str]") -> tuple[int, str]:
        assert self._http is not None  # noqa: S101 - set before the first step
        timeout = aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S)
        async with self._http.ws_connect(self.url, timeout=timeout, max_msg_size=FRAME_MAX_BYTES) as ws:
            self._step(lambda now_s: self._core.link.opened(connection, now_s))
            writing = self._tasks.create_task(_write(ws, outgoing))
            try:
                async for message in ws:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        self._step(partial(self._core.received, connection, message.data))
            finally:
                writing.cancel()
            return ws.close_code or ABNORMAL, _last_words(ws)

    async def _fetch_token(self, reason: TokenReason) -> None:
        assert self._fetch is not None  # noqa: S101 - else the core does not ask
        try:
            token = await self._fetch(reason)
        except Exception as error:  # the wall around the application's callback
            failure = str(error) or type(error).__name__
            self._step(lambda now_s: self._core.link.token_failed(failure, now_s))
        else:
            self._step(lambda now_s: self._core.link.token_ready(token, now_s))


class _Stream:
    """What waits for one iterator: at most 10,000 events; with one more it ends, behind them, with EventsOverflow."""

    def __init__(self, types: Sequence[str]) -> None:
        self._types = frozenset(types)
        self._arrived = asyncio.Event()
        self._end: Exception | None = None
        self._waiting: deque[Event] = deque()

    def put(self, event: Event) -> None:
        """Take an event."""
        if self._end is not None or (self._types and event.type not in self._types):
            return
        if len(self._waiting) < EVENTS_MAX:
            self._waiting.append(event)
            self._arrived.set()
        else:
            self.end(EventsOverflow(f"more than {EVENTS_MAX} events wait"))

    def end(self, how: Exception) -> None:
        """There will be no more."""
        self._end = self._end or how
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._end is not None:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()


async def _write(ws: aiohttp.ClientWebSocketResponse, outgoing: "asyncio.Queue[str]") -> None:
    """Until the socket breaks; its reader notices and reports it."""
    with suppress(aiohttp.ClientError, OSError):
        while True:
            await ws.send_str(await outgoing.get())


def _last_words(ws: aiohttp.ClientWebSocketResponse) -> str:
    error = ws.exception()
    return "" if error is None else str(error) or type(error).__name__


def _seconds_of(error: aiohttp.WSServerHandshakeError) -> float:
    """The Retry-After of a refused upgrade, if it is a number of seconds."""
    text = "" if error.headers is None else error.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _address_of(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a gateway")
    path = PATH if parts.path in ("", "/") else parts.path
    return urlunsplit(parts._replace(scheme=parts.scheme.replace("http", "ws", 1), path=path))
