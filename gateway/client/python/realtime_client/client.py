"""The client: sockets, token fetches, timers and futures around the pure core."""

import asyncio
import math
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, assert_never

from realtime_client.actions import Action, Drop, Emit, Fail, FetchToken, Open, Resolve, Send, TokenReason
from realtime_client.core import Core
from realtime_client.events import Event, EventDispatcher, Handler
from realtime_client.options import ClientOptions
from realtime_client.protocol import SUBSCRIPTIONS, wire_names
from realtime_client.requests import RequestFailed
from realtime_client.status import State, Stats
from realtime_client.transport import WebSocketTransport, live_url

TokenSource = Callable[[TokenReason], Awaitable[str]]
Result = TypeVar("Result")


class RealtimeClient:
    """A connection that outlives its sockets: an async context manager for one event loop. See the package's docstring.

    Every input passes through `_step`: the core decides, and the shell carries out the resulting actions in order.
    """

    def __init__(self, url: str, token: str | TokenSource, *, options: ClientOptions | None = None) -> None:
        """Prepare a client for `url`: ws(s)://host/v1/live or http(s)://host.

        `token` is a JWT, or a coroutine function that fetches one for the given reason. Raises ValueError for any other
        URL.
        """
        self.url = live_url(url)
        self._fetch = token if callable(token) else None
        self._core = Core(
            options or ClientOptions(),
            random.random,
            token=token if isinstance(token, str) else None,
            can_refresh=self._fetch is not None,
        )
        self._events = EventDispatcher()
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._settled = asyncio.Event()  # set while the state is open or closed
        self._outgoing: asyncio.Queue[str] | None = None
        self._socket: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_stepping = False
        self._tasks = asyncio.TaskGroup()
        self._transport = WebSocketTransport(self.url, self._tasks)

    @property
    def state(self) -> State:
        """Return the state of the connection."""
        return self._core.state

    @property
    def stats(self) -> Stats:
        """Return the counters since the client was created."""
        return self._core.stats

    # Life cycle ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._transport.start()
        self._step(self._core.link.connect)
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
            await self._transport.stop()

    async def connected(self) -> None:
        """Wait until the connection is open. Raises RequestFailed (CLOSED) if the client is closed."""
        await self._settled.wait()
        if self.state is State.CLOSED:
            raise RequestFailed("CLOSED", "the client is closed")

    def connect(self) -> None:
        """Connect again after the client has closed, for example with another token."""
        self._step(self._core.link.connect)

    def set_token(self, token: str) -> None:
        """Use this token from now on, and renew an open connection with it."""
        self._step(lambda now_s: self._core.link.token_ready(token, now_s))

    def wake(self) -> None:
        """Reconnect without further delay, because the network is known to be back."""
        self._step(self._core.link.wake)

    # Events ----------------------------------------------------------------------------------------------------------

    def on(self, type_: str, handler: Handler) -> Callable[[], None]:
        """Call `handler(data)` for each event of a type, in order. Return a function that removes the handler.

        A handler must not block. Its exceptions are logged and affect no other handler. Raises TypeError for a
        coroutine function.
        """
        self._events.add_handler(type_, handler)
        return lambda: self.off(type_, handler)

    def off(self, type_: str, handler: Handler | None = None) -> None:
        """Remove a handler, or all handlers of a type."""
        self._events.remove_handler(type_, handler)

    def events(self, *types: str) -> AsyncIterator[Event]:
        """Return an iterator over the events of some types, or of all, from this call until the client is closed.

        The iterator buffers 10,000 events. Raises EventsOverflow from the iteration if more are unread.
        """
        return self._events.stream(types)

    # Requests --------------------------------------------------------------------------------------------------------

    async def subscribe(self, channel: str, **options: Any) -> Any:
        """Subscribe to a channel and return the `subscribed` data.

        Channels and options: "chatroom" (chatroom_id, since=None or since_rev=None), "notifications" (since=None),
        "market" (symbols, max_rate=10.0), "community" (community_id), "activity". The subscription outlives connections
        until `unsubscribe`. Raises RequestFailed.
        """
        target = SUBSCRIPTIONS[channel](**options)
        return await self._ask(lambda now_s: self._core.subscribe(target, now_s))

    async def unsubscribe(self, channel: str, **options: Any) -> Any:
        """Unsubscribe from a channel with the options of `subscribe`, and return the `unsubscribed` data."""
        target = SUBSCRIPTIONS[channel](**options)
        return await self._ask(lambda now_s: self._core.unsubscribe(target, now_s))

    async def send_message(
        self, chatroom_id: str, message: str, *, client_message_id: str | None = None, **extras: Any
    ) -> Any:
        """Send a message and return its `chat:ack` data once the message is on disk.

        `extras`: reply_to (a message id), mentions (user ids), mention_room, attachments (dicts with kind, url, …),
        symbols. Cancelling the call does not recall the message. Raises RequestFailed.
        """
        frame = {"type": "chat:send", "chatroomId": chatroom_id, "message": message, **wire_names(extras)}
        return await self._send(frame, f"room {chatroom_id}", client_message_id)

    async def send_direct(
        self, user_id: str, message: str, *, client_message_id: str | None = None, **extras: Any
    ) -> Any:
        """Send a direct message and return its `chat:ack` data; `extras` as for a message. Raises RequestFailed."""
        frame = {"type": "chat:direct", "userId": user_id, "message": message, **wire_names(extras)}
        return await self._send(frame, f"user {user_id}", client_message_id)

    async def edit_message(
        self, chatroom_id: str, message_id: str, message: str, *, mentions: Sequence[str] | None = None
    ) -> Any:
        """Change the text of one's own message; None keeps its mentions. Return {chatroomId, messageId, rev}."""
        frame: dict[str, Any] = {"type": "chat:edit", "message": message}
        return await self._change(chatroom_id, message_id, frame | wire_names({"mentions": mentions}))

    async def delete_message(self, chatroom_id: str, message_id: str) -> Any:
        """Replace a message by a tombstone. Raises RequestFailed."""
        return await self._change(chatroom_id, message_id, {"type": "chat:delete"})

    async def react(self, chatroom_id: str, message_id: str, emoji: str, *, remove: bool = False) -> Any:
        """Add a reaction to a message, or remove it. Raises RequestFailed."""
        return await self._change(chatroom_id, message_id, {"type": "chat:react", "emoji": emoji, "remove": remove})

    async def mark_read(self, chatroom_id: str, seq: int) -> Any:
        """Mark all messages of a room up to `seq` as read. Raises RequestFailed."""
        frame = {"type": "chat:read", "chatroomId": chatroom_id, "seq": seq}
        return await self._ask(lambda now_s: self._core.request(frame, now_s))

    async def presence(self, user_ids: Sequence[str]) -> Any:
        """Return the presence of users: a list of {userId, status, lastSeenAt}. Raises RequestFailed."""
        frame = {"type": "presence:get", "userIds": list(user_ids)}
        return (await self._ask(lambda now_s: self._core.request(frame, now_s)))["users"]

    def typing(self, chatroom_id: str, is_typing: bool = True) -> bool:
        """Announce that the user types. Return False, without sending, if there is no connection."""
        frame = {"type": "chat:typing", "chatroomId": chatroom_id, "isTyping": is_typing}
        return self._step(lambda _: self._core.send_now(frame))

    async def _change(self, chatroom_id: str, message_id: str, frame: dict[str, Any]) -> Any:
        """Change a stored message. Changes are idempotent, and stay in order with the messages of their room.

        A rate limit on one of both lets the other overtake.
        """
        frame |= {"chatroomId": chatroom_id, "messageId": message_id}
        return await self._ask(lambda now_s: self._core.send_message(frame, f"room {chatroom_id}", now_s))

    async def _send(self, frame: dict[str, Any], ordering_key: str, client_message_id: str | None) -> Any:
        frame["clientMessageId"] = client_message_id or secrets.token_hex(16)
        return await self._ask(lambda now_s: self._core.send_message(frame, ordering_key, now_s))

    async def _ask(self, ask: Callable[[float], int]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def step(now_s: float) -> None:
            self._futures[ask(now_s)] = future

        self._step(step)
        return await future

    # Shell -----------------------------------------------------------------------------------------------------------

    def _step(self, step: Callable[[float], Result]) -> Result:
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
            while actions := self._core.take():
                for action in actions:
                    self._do(action)
        finally:
            self._is_stepping = False
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self._core.deadline_s(loop.time())
        self._timer = None if deadline_s == math.inf else loop.call_at(deadline_s, self._step, self._core.tick)
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
            is_settled = self.state in (State.OPEN, State.CLOSED)
            (self._settled.set if is_settled else self._settled.clear)()
        self._events.dispatch(event)
        if event.type == "state" and self.state is State.CLOSED:  # unless a handler has called `connect`
            self._events.end_streams()

    async def _run_socket(self, connection: int, outgoing: "asyncio.Queue[str]") -> None:
        """Run one socket and report its events to the core."""
        end = await self._transport.run(
            outgoing,
            on_open=lambda: self._step(partial(self._core.link.opened, connection)),
            on_text=lambda text: self._step(partial(self._core.received, connection, text)),
        )
        self._step(lambda now_s: self._core.link.closed(connection, end.code, end.reason, now_s, end.retry_after_s))

    async def _fetch_token(self, reason: TokenReason) -> None:
        assert self._fetch is not None  # noqa: S101 - the core asks only if a token can be fetched
        try:
            token = await self._fetch(reason)
        except Exception as error:  # isolates the client from the application's callback
            failure = str(error) or type(error).__name__
            self._step(lambda now_s: self._core.link.token_failed(failure, now_s))
        else:
            self._step(lambda now_s: self._core.link.token_ready(token, now_s))
