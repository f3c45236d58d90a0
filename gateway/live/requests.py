"""Requests of an authenticated socket: chat, typing, read marks, presence, subscriptions."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, assert_never

import msgspec

from gateway import metrics
from gateway.backend import Backend, read_sent
from gateway.live.socket import Socket
from gateway.live.subscriptions import Subscriptions
from gateway.user_rates import UserRates
from shared.bus.delivery import community_channel, room_channel
from shared.commands.chat import Changed, DeleteMessage, EditMessage, React, Sent
from shared.commands.command import Reply
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.protocol.client_frames import (
    Auth,
    ChatDelete,
    ChatDirect,
    ChatEdit,
    ChatReact,
    ChatRead,
    ChatroomTarget,
    ChatSend,
    ChatTyping,
    CommunityTarget,
    FrameRefused,
    Incoming,
    Ping,
    PresenceGet,
    Request,
    Subscribe,
    Unsubscribe,
    channel_name,
    parse_subscription,
)
from shared.protocol.message_frames import ChangeAckData
from shared.protocol.reaction_emoji import reaction_emoji
from shared.protocol.server_frames import ChatAckData, error_frame, frame
from shared.protocol.validation import FrameId
from shared.telemetry import logs, tracing
from shared.times import monotonic_ms

log = logs.get(__name__)

RESTORED_AT_ONCE = 8  # channels of one socket: more would wait for their user's share of the budget of reads


class LiveRequests:
    """Performs the requests of all sockets of one gateway process."""

    def __init__(
        self,
        backend: Backend,
        subscriptions: Subscriptions,
        rates: UserRates,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        self._backend = backend
        self._subscriptions = subscriptions
        self._rates = rates
        self._spawn = spawn

    async def perform(self, socket: Socket, incoming: Incoming) -> None:
        """Perform the request of one frame and answer it, unless it exceeds a rate of its user.

        Sends, changes of messages, read marks and typing are pipelined: they leave in the order of the frames, and are
        answered when their replies arrive. Every other request completes before the socket's next frame is read.
        """
        try:
            self._rates.count_frame(incoming.request, socket.caller, monotonic_ms())
        except Refusal as refusal:
            self._answer_error(socket, incoming, refusal)
        else:
            await self._perform(socket, incoming)

    async def _perform(self, socket: Socket, incoming: Incoming) -> None:
        match incoming.request:
            case Subscribe(target):
                await self._attempt(socket, incoming, self._subscriptions.subscribe(socket, target, incoming.id))
            case Unsubscribe(target):
                self._subscriptions.unsubscribe(socket, target, incoming.id)
            case ChatSend() | ChatDirect() as request:
                await self._send(socket, incoming, request)
            case ChatEdit() | ChatDelete() | ChatReact() as request:
                await self._pipeline(socket, incoming, self._change(socket, request, incoming.id))
            case ChatTyping() as request:
                await self._pipeline(socket, incoming, self._set_typing(socket, request, incoming.id))
            case ChatRead() as request:
                await self._pipeline(socket, incoming, self._mark_read(socket, request, incoming.id))
            case PresenceGet() as request:
                await self._attempt(socket, incoming, self._get_presence(socket, request, incoming.id))
            case Auth() | Ping():
                raise AssertionError("auth and ping frames never become requests")
            case other:
                assert_never(other)

    def send_at_once(self, socket: Socket, incoming: Incoming) -> bool:
        """Send a message without awaiting. Return False if the request is not a send, or has to wait. HOT."""
        request = incoming.request
        if not isinstance(request, ChatSend | ChatDirect) or request.symbols or not socket.in_flight.try_begin():
            return False
        with tracing.span(incoming.name, incoming.trace):
            self._send_begun(socket, incoming, request)
        return True

    async def restore(self, socket: Socket, entries: list[msgspec.Raw]) -> None:
        """Handle each entry of `auth.subscriptions` like a subscribe frame, but exempt from the subscribe rate limit.

        Entries for the same channel are handled in order, eight channels concurrently. Communities that a renewed
        token no longer names are unsubscribed first.
        """
        self._subscriptions.end_communities(socket)
        by_channel: dict[str, list[Incoming]] = {}
        for entry in entries:
            try:
                incoming = parse_subscription(entry)
            except FrameRefused as refused:
                socket.send(error_frame(refused, refused.name, refused.id))
                continue
            by_channel.setdefault(_channel_key(incoming.request), []).append(incoming)

        for incomings in by_channel.values():
            self._subscriptions.expect(socket, incomings[0].request)
        slots = asyncio.Semaphore(RESTORED_AT_ONCE)

        async def in_order(incomings: list[Incoming]) -> None:
            async with slots:
                for incoming in incomings:
                    await self._perform(socket, incoming)

        if len(by_channel) == 1:  # HOT: no task of its own, which costs 20 us
            await in_order(*by_channel.values())
            return
        await asyncio.gather(*map(in_order, by_channel.values()))

    def forget(self, socket: Socket) -> None:
        """End the subscriptions of a closed socket."""
        self._subscriptions.forget(socket)

    async def _pipeline(self, socket: Socket, incoming: Incoming, work: Coroutine[Any, Any, None]) -> None:
        """Start `work` without awaiting it; wait first while 64 requests of the socket are in flight (backpressure)."""
        await socket.in_flight.begin()
        if socket.closing:  # the client sends the frame again to another gateway
            work.close()
            socket.in_flight.end()
            return
        task = self._spawn(self._attempt(socket, incoming, work))
        task.add_done_callback(lambda _: socket.in_flight.end())

    async def _attempt(self, socket: Socket, incoming: Incoming, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, and answer any failure with an error frame."""
        try:
            await work
        except Exception as error:  # a bug costs this request and no other
            self._answer_error(socket, incoming, error)

    def _answer_error(self, socket: Socket, incoming: Incoming, error: Exception) -> None:
        match error:
            case Refusal():
                refusal = error
            case Unavailable():
                refusal = Refusal(ErrorCode.UNAVAILABLE, str(error))
            case _:
                log.error("frame_failed", type=incoming.name, exc_info=error)
                refusal = Refusal(ErrorCode.INTERNAL, "internal server error")
        metrics.ERRORS_OUT.labels(refusal.code).inc()
        socket.send(error_frame(refusal, incoming.name, incoming.id))

    # Chat -----------------------------------------------------------------------------------------------------------

    async def _send(self, socket: Socket, incoming: Incoming, request: ChatSend | ChatDirect) -> None:
        """Send a message; pipelined like `_pipeline`."""
        refusal = await self._backend.refusal_of_symbols(request)
        await socket.in_flight.begin()
        if socket.closing:
            socket.in_flight.end()
        else:
            self._send_begun(socket, incoming, request, refusal)

    def _send_begun(
        self, socket: Socket, incoming: Incoming, request: ChatSend | ChatDirect, refusal: Refusal | None = None
    ) -> None:
        """Send a message that is counted as in flight. HOT: a callback instead of a task."""
        try:
            if isinstance(request, ChatSend):
                reply = self._backend.send_message(socket.caller, request.chatroom_id, request, refusal)
            else:
                reply = self._backend.send_direct(socket.caller, request.user_id, request, refusal)
        except Refusal as error:
            socket.in_flight.end()
            self._answer_error(socket, incoming, error)
            return
        reply.add_done_callback(partial(self._answer_sent, socket, incoming))

    def _answer_sent(self, socket: Socket, incoming: Incoming, reply: "asyncio.Future[Reply]") -> None:
        socket.in_flight.end()
        try:
            answer = frame("chat:ack", _ack(read_sent(reply.result())), incoming.id)
        except Exception as error:  # a callback has no caller to raise to
            self._answer_error(socket, incoming, error)
        else:
            socket.send(answer)

    async def _change(self, socket: Socket, request: ChatEdit | ChatDelete | ChatReact, id: FrameId | None) -> None:
        """Change a stored message."""
        fields = self._backend.room_command_fields(socket.caller)
        command: EditMessage | DeleteMessage | React
        match request:
            case ChatEdit():
                command = EditMessage(
                    **fields,
                    room_id=request.chatroom_id,
                    message_id=request.message_id,
                    message=request.text(),
                    mentions=request.all_mentions(),
                )
            case ChatDelete():
                command = DeleteMessage(**fields, room_id=request.chatroom_id, message_id=request.message_id)
            case ChatReact():
                command = React(
                    **fields,
                    room_id=request.chatroom_id,
                    message_id=request.message_id,
                    emoji=reaction_emoji(request.emoji),
                    is_removal=request.remove,
                )
        changed = await self._backend.room_command(command, Changed)
        ack = ChangeAckData(chatroom_id=changed.chatroom_id, message_id=changed.message_id, rev=changed.rev)
        socket.send(frame("chat:ack", ack, id))

    async def _set_typing(self, socket: Socket, request: ChatTyping, id: FrameId | None) -> None:
        mark = await self._backend.set_typing(socket.caller, request.chatroom_id, request.is_typing)
        if id is not None:
            socket.send(frame("chat:typing", mark, id))

    async def _mark_read(self, socket: Socket, request: ChatRead, id: FrameId | None) -> None:
        mark = await self._backend.mark_read(socket.caller, request.chatroom_id, request.seq, socket.session_id)
        if id is not None:
            socket.send(frame("chat:read", mark, id))

    async def _get_presence(self, socket: Socket, request: PresenceGet, id: FrameId | None) -> None:
        state = await self._backend.presence(socket.caller, tuple(request.user_ids))
        socket.send(frame("presence:state", state, id))


def _channel_key(request: Request) -> str:
    """Return the key of a channel: subscriptions with the same key are handled in order."""
    match request:
        case Subscribe(ChatroomTarget() as target):
            return room_channel(target.chatroom_id)
        case Subscribe(CommunityTarget() as target):
            return community_channel(target.community_id)
        case Subscribe(target):
            return channel_name(target)
        case _:
            return ""


def _ack(sent: Sent) -> ChatAckData:
    message = sent.message
    return ChatAckData(
        chatroom_id=message.chatroom_id,
        message_id=message.id,
        seq=message.seq,
        rev=message.rev,
        client_message_id=message.client_message_id,
        timestamp=message.created_at,
    )
