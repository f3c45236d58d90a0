"""The shell around the pure core: sockets, token fetches, timers and futures."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, assert_never

from realtime_client.actions import Action, Drop, Emit, Fail, FetchToken, Open, Resolve, Send, TokenReason
from realtime_client.core import Core
from realtime_client.events import Event, EventDispatcher
from realtime_client.options import ClientOptions
from realtime_client.requests import RequestFailed
from realtime_client.status import State
from realtime_client.transport import WebSocketTransport

TokenSource = Callable[[TokenReason], Awaitable[str]]
Result = TypeVar("Result")


class Shell:
    """Carries out the actions of a core: an async context manager for one event loop.

    Every input passes through `step`: the core decides, and the shell carries out the resulting actions in order.
    """

    def __init__(self, url: str, token: str | TokenSource, options: ClientOptions) -> None:
        self.core = Core(
            options,
            random.random,
            token=token if isinstance(token, str) else None,
            can_refresh=callable(token),
        )
        self.events = EventDispatcher()
        self._fetch = token if callable(token) else None
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._settled = asyncio.Event()  # set while the state is open or closed
        self._outgoing: asyncio.Queue[str] | None = None
        self._socket: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_stepping = False
        self._tasks = asyncio.TaskGroup()
        self._transport = WebSocketTransport(url, self._tasks)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._transport.start()
        self.step(self.core.link.connect)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.step(lambda _: self.core.link.close())
        if self._fetching is not None:
            self._fetching.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._transport.stop()

    async def connected(self) -> None:
        """Wait until the connection is open. Raises RequestFailed (CLOSED) if the client is closed."""
        await self._settled.wait()
        if self.core.state is State.CLOSED:
            raise RequestFailed("CLOSED", "the client is closed")

    async def ask(self, ask: Callable[[float], int]) -> Any:
        """Run a step that starts a request, and wait for its answer. Raises RequestFailed."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def step(now_s: float) -> None:
            self._futures[ask(now_s)] = future

        self.step(step)
        return await future

    def step(self, step: Callable[[float], Result]) -> Result:
        """Run one step of the core and carry out its actions.

        A handler may call back into the client: the inner step only extends the actions of the outer one, so that
        actions keep their order.
        """
        loop = asyncio.get_running_loop()
        result = step(loop.time())
        if self._is_stepping:
            return result
        self._is_stepping = True
        try:
            while actions := self.core.take():
                for action in actions:
                    self._do(action)
        finally:
            self._is_stepping = False
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self.core.deadline_s(loop.time())
        self._timer = None if deadline_s == math.inf else loop.call_at(deadline_s, self.step, self.core.tick)
        return result

    def _do(self, action: Action) -> None:
        match action:
            case Open(connection):
                self._outgoing = asyncio.Queue()
                self._socket = self._tasks.create_task(self._run_socket(connection, self._outgoing))
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
            case Resolve(id_, data):
                if not (future := self._futures.pop(id_)).done():  # the caller may have cancelled it
                    future.set_result(data)
            case Fail(id_, error):
                if not (future := self._futures.pop(id_)).done():
                    future.set_exception(error)
            case _:
                assert_never(action)

    def _emit(self, event: Event) -> None:
        if event.type == "state":
            is_settled = self.core.state in (State.OPEN, State.CLOSED)
            (self._settled.set if is_settled else self._settled.clear)()
        self.events.dispatch(event)
        if event.type == "state" and self.core.state is State.CLOSED:  # unless a handler has called `connect`
            self.events.end_streams()

    async def _run_socket(self, connection: int, outgoing: "asyncio.Queue[str]") -> None:
        """Run one socket and report its events to the core."""
        end = await self._transport.run(
            outgoing,
            on_open=lambda: self.step(partial(self.core.link.opened, connection)),
            on_text=lambda text: self.step(partial(self.core.received, connection, text)),
        )
        self.step(lambda now_s: self.core.link.closed(connection, end.code, end.reason, now_s, end.retry_after_s))

    async def _fetch_token(self, reason: TokenReason) -> None:
        assert self._fetch is not None  # noqa: S101 - the core asks only if a token can be fetched
        try:
            token = await self._fetch(reason)
        except Exception as error:  # isolates the client from the application's callback
            failure = str(error) or type(error).__name__
            self.step(lambda now_s: self.core.link.token_failed(failure, now_s))
        else:
            self.step(lambda now_s: self.core.link.token_ready(token, now_s))
