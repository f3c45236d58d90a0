"""The client: its public methods, over the shell and the pure core."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from realtime_client.events import Event, Handler
from realtime_client.options import ClientOptions
from realtime_client.protocol import SUBSCRIPTIONS, wire_names
from realtime_client.shell import Shell, TokenSource
from realtime_client.status import State, Stats
from realtime_client.transport import live_url


class RealtimeClient:
    """A connection that outlives its sockets: an async context manager for one event loop.

    See the package's docstring.
    """

    def __init__(self, url: str, token: str | TokenSource, *, options: ClientOptions | None = None) -> None:
        """Prepare a client for `url`: ws(s)://host/v1/live or http(s)://host.

        `token` is a JWT, or a coroutine function that fetches one for the given reason. Raises ValueError for any other
        URL.
        """
        self.url = live_url(url)
        self._shell = Shell(self.url, token, options or ClientOptions())
        self._core = self._shell.core

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
        await self._shell.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._shell.__aexit__(kind, error, trace)

    async def connected(self) -> None:
        """Wait until the connection is open. Raises RequestFailed (CLOSED) if the client is closed."""
        await self._shell.connected()

    def connect(self) -> None:
        """Connect again after the client has closed, for example with another token."""
        self._shell.step(self._core.link.connect)

    def set_token(self, token: str) -> None:
        """Use this token from now on, and renew an open connection with it."""
        self._shell.step(lambda now_s: self._core.link.token_ready(token, now_s))

    def wake(self) -> None:
        """Reconnect without further delay, or ping if the connection is open: the network is known to be back."""
        self._shell.step(self._core.link.wake)

    # Events ----------------------------------------------------------------------------------------------------------

    def on(self, type_: str, handler: Handler) -> Callable[[], None]:
        """Call `handler(data)` for each event of a type, in order. Return a function that removes the handler.

        A handler must not block. Its exceptions are logged and affect no other handler. Raises TypeError for a
        coroutine function.
        """
        self._shell.events.add_handler(type_, handler)
        return lambda: self.off(type_, handler)

    def off(self, type_: str, handler: Handler | None = None) -> None:
        """Remove a handler, or all handlers of a type."""
        self._shell.events.remove_handler(type_, handler)

    def events(self, *types: str) -> AsyncIterator[Event]:
        """Return an iterator over the events of some types, or of all, from this call until the client is closed.

        The iterator buffers 10,000 events. Raises EventsOverflow from the iteration if more are unread.
        """
        return self._shell.events.stream(types)

    # Requests --------------------------------------------------------------------------------------------------------

    async def subscribe(self, channel: str, **options: Any) -> Any:
        """Subscribe to a channel and return the `subscribed` data.

        Channels and options: "chatroom" (chatroom_id, since=None or since_rev=None), "notifications" (since=None),
        "market" (symbols, max_rate=10.0), "community" (community_id), "activity". The subscription lasts until you
        unsubscribe or the server refuses or ends it, and survives reconnects. Raises RequestFailed.
        """
        target = SUBSCRIPTIONS[channel](**options)
        return await self._shell.ask(lambda now_s: self._core.subscribe(target, now_s))

    async def unsubscribe(self, channel: str, **options: Any) -> Any:
        """Unsubscribe from a channel with the options of `subscribe`, and return the `unsubscribed` data."""
        target = SUBSCRIPTIONS[channel](**options)
        return await self._shell.ask(lambda now_s: self._core.unsubscribe(target, now_s))

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
        """Change the text of one of the user's own messages, and return {chatroomId, messageId, rev}.

        With `mentions=None` the message keeps its mentions. Raises RequestFailed.
        """
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
        return await self._shell.ask(lambda now_s: self._core.request(frame, now_s))

    async def presence(self, user_ids: Sequence[str]) -> Any:
        """Return the presence of users: a list of {userId, status, lastSeenAt}. Raises RequestFailed."""
        frame = {"type": "presence:get", "userIds": list(user_ids)}
        return (await self._shell.ask(lambda now_s: self._core.request(frame, now_s)))["users"]

    def typing(self, chatroom_id: str, is_typing: bool = True) -> bool:
        """Announce that the user types. Return False, without sending, if there is no connection."""
        frame = {"type": "chat:typing", "chatroomId": chatroom_id, "isTyping": is_typing}
        return self._shell.step(lambda _: self._core.send_now(frame))

    async def _change(self, chatroom_id: str, message_id: str, frame: dict[str, Any]) -> Any:
        """Change a stored message. Changes are idempotent, and stay in order with the messages of their room.

        Exception: while a rate limit pauses messages or changes, the other kind overtakes.
        """
        frame |= {"chatroomId": chatroom_id, "messageId": message_id}
        return await self._shell.ask(lambda now_s: self._core.send_message(frame, f"room {chatroom_id}", now_s))

    async def _send(self, frame: dict[str, Any], ordering_key: str, client_message_id: str | None) -> Any:
        frame["clientMessageId"] = client_message_id or secrets.token_hex(16)
        return await self._shell.ask(lambda now_s: self._core.send_message(frame, ordering_key, now_s))
