"""`/v1/live`: the shell around `Session`. Reads frames in order, does what they ask, answers."""

import asyncio
import time
import zlib
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, assert_never, cast

import msgspec
from aiohttp import WSMsgType, web

from gateway import metrics
from gateway.admission.admission import Admission, Refused
from gateway.admission.admission_queue import AdmissionQueue
from gateway.auth.guard import Guard
from gateway.backend import Backend, read_sent
from gateway.fanout.hub import Hub
from gateway.live.connection_limit import UserSockets, too_many
from gateway.live.connections import Connections, Socket
from gateway.live.drain import LATE_SPREAD_MS, farewell
from gateway.live.presence import Roster
from gateway.live.session import Answer, Authenticate, Close, Perform, Session
from gateway.live.subscriptions import Subscriptions, caller_of
from gateway.settings import GatewaySettings
from shared.bus.delivery import Delivery, community_channel, room_channel, user_channel
from shared.commands.chat import Sent
from shared.commands.command import Reply
from shared.commands.notifier import Revocation
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.ids import Prefix, new_id
from shared.protocol.client_frames import (
    Auth,
    ChatDirect,
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
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import AuthOkData, ChatAckData, error_frame, frame
from shared.protocol.validation import FrameId
from shared.telemetry import logs, tracing
from shared.times import now_ms, to_iso

log = logs.get(__name__)

SUBSCRIPTIONS_IN_AUTH_MAX = 200
TAKEN_IN_A_TURN = 32
_COUNTED = frozenset({WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG})


class Live:
    """The WebSocket endpoint of one gateway process."""

    def __init__(
        self,
        settings: GatewaySettings,
        guard: Guard,
        backend: Backend,
        hub: Hub,
        roster: Roster,
        tasks: asyncio.TaskGroup,
        admission: Admission,
        turns: AdmissionQueue,
        connections: Connections,
        user_sockets: UserSockets,
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._backend = backend
        self._hub = hub
        self._roster = roster
        self._tasks = tasks
        self._admission = admission
        self._turns = turns
        self.connections = connections
        self.subscriptions = Subscriptions(backend, hub, tasks.create_task)
        self._user_sockets = user_sockets
        self.on_standing: Callable[[Revocation], None] = lambda _: None
        metrics.CONNECTIONS_MAX.set(settings.max_connections)

    @property
    def draining(self) -> bool:
        """Whether the gateway is leaving."""
        return self._admission.draining

    def leave(self) -> None:
        """Admit nobody any more."""
        self._admission.draining = True

    async def readiness(self) -> str | None:
        """None, or that the gateway is leaving."""
        return "draining" if self.draining else None

    # Connections ----------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The handler of GET /v1/live."""
        address = self._enter_by(request)
        try:
            return await self._serve(request)
        finally:
            self._admission.left(address)

    def _enter_by(self, request: web.Request) -> str:
        """Raises a refusal of the upgrade; the app makes a response of it."""
        headers = request.headers
        try:
            return self._admission.enter(
                request.remote or "", headers.getall("X-Forwarded-For", []), headers.getall("Origin", [])
            )
        except Refused as refused:
            metrics.CONNECTIONS_REFUSED.labels(refused.reason).inc()
            raise

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(
            max_msg_size=self._settings.max_message_bytes + 1,  # aiohttp takes less than this
            autoping=False,  # a ping is a sign of life; aiohttp would not tell
            compress=self._settings.compression,
            timeout=2.0,
        )
        with self.connections.opening():
            try:
                await ws.prepare(request)
            except ValueError as error:  # aiohttp stumbles over bytes that are not ASCII in what it answers to
                raise Refusal(ErrorCode.VALIDATION, "this is no WebSocket handshake") from error
            session = Session(new_id(Prefix.SESSION), self._settings, time.monotonic())
            socket = Socket(self.connections, ws, cast(asyncio.Transport, request.transport), session)
            socket.deflates = ws.compress == zlib.MAX_WBITS  # who wants a smaller window is sent plain frames
            self.connections.add(socket)
        if self.draining:  # since the upgrade was asked for
            socket.close(farewell(LATE_SPREAD_MS))
        try:
            await self._read(ws, socket)
        except Exception:  # the wall around one socket
            log.exception("connection_failed")
            socket.close(Close(CloseCode.INTERNAL, "an error of ours"))
        finally:
            if not socket.closing:
                metrics.CLOSES.labels(_client_code(ws.close_code), "client").inc()
            socket.closing = True
            self._forget(socket)
        return ws

    async def _read(self, ws: web.WebSocketResponse, socket: Socket) -> None:
        session, taken = socket.session, 0
        while True:
            message = await ws.receive()
            taken += 1
            if not taken % TAKEN_IN_A_TURN:
                await asyncio.sleep(0)  # what has come already is read without waiting: others want their turn
            if socket.closing and message.type in _COUNTED:
                continue
            if message.type in _COUNTED and (close := session.taken(time.monotonic())) is not None:
                socket.close(close)
                continue
            match message.type:
                case WSMsgType.TEXT:
                    if socket.is_present:
                        await self._act(socket, message.data)
                    else:
                        async with self._turns.turn():
                            if not socket.is_gone:  # while it waited
                                await self._act(socket, message.data)
                case WSMsgType.PING:
                    with suppress(ConnectionError):  # gone meanwhile; the next read says so
                        await ws.pong(message.data)
                case WSMsgType.PONG:
                    pass
                case WSMsgType.BINARY:
                    socket.close(Close(CloseCode.UNSUPPORTED, "only text frames are taken"))
                case _:
                    return

    def _forget(self, socket: Socket) -> None:
        self.subscriptions.forget(socket)
        self.connections.remove(socket)
        if socket.user_id:
            self._user_sockets.closed(socket.user_id)
        if socket.is_present:
            self._roster.closed(socket.user_id, time.monotonic())

    # Frames ---------------------------------------------------------------------------------------------------------

    async def _act(self, socket: Socket, text: str) -> None:
        metrics.BYTES_IN.inc(len(text) if text.isascii() else len(text.encode()))
        match socket.session.receive(text, time.monotonic()):
            case Answer(answer, refused):
                metrics.FRAMES_IN.labels("ping" if refused is None else "other").inc()
                if refused is not None:
                    metrics.ERRORS_OUT.labels(refused).inc()
                socket.send(answer)
            case Close() as close:
                metrics.FRAMES_IN.labels("other").inc()
                socket.close(close)
            case Authenticate(request, id):
                metrics.FRAMES_IN.labels("auth").inc()
                await self._authenticate(socket, request, id)
            case Perform(incoming):
                metrics.FRAMES_IN.labels(incoming.name).inc()
                with tracing.span(incoming.name):
                    await self._perform(socket, incoming)
            case other:
                assert_never(other)

    async def _authenticate(self, socket: Socket, request: Auth, id: FrameId | None) -> None:
        session = socket.session
        try:
            await self._guard.refresh_keys_for(request.token)
            if socket.closing:
                return
            identity = self._guard.authenticate(request.token)
            if session.identity is None and await self._user_sockets.hear(identity.user_id):
                if socket.closing:
                    return
                identity = self._guard.authenticate(request.token)  # it may have been revoked meanwhile
            if len(request.subscriptions) > SUBSCRIPTIONS_IN_AUTH_MAX:
                raise Refusal.invalid("subscriptions", f"at most {SUBSCRIPTIONS_IN_AUTH_MAX}")
        except Refusal as refusal:
            socket.close(session.turned_away(refusal, "auth", id))
            return
        except Unavailable as error:
            self._not_now(socket, error, id)
            return
        is_first = session.identity is None
        if (close := session.authenticated(identity, id)) is not None:
            socket.close(close)
            return
        if is_first and not await self._enter(socket, identity.user_id, id):
            return
        data = AuthOkData(
            user_id=identity.user_id,
            session_id=session.id,
            server_time=to_iso(now_ms()),
            expires_at=to_iso(identity.expires_at_ms),
            heartbeat_interval=round(self._settings.heartbeat_interval_s * 1000),
            connection_timeout=round(self._settings.connection_timeout_s * 1000),
            max_message_bytes=self._settings.max_message_bytes,
        )
        socket.send(frame("auth:ok", data, id))
        self.subscriptions.end_communities(socket)
        await self._restore(socket, request.subscriptions)

    async def _enter(self, socket: Socket, user_id: str, id: FrameId | None) -> bool:
        """The user's own channel reaches every socket of the user, without subscribing."""
        if not self._user_sockets.may_open(user_id):
            socket.close(too_many(id))
            return False
        for other in self.connections.by_user.get(user_id, ()):
            socket.session.share_rate(other.session)
            break
        self.connections.identify(socket, user_id)
        try:
            await self.subscriptions.listen(socket, user_channel(user_id))
        except Unavailable as error:
            self._not_now(socket, error, id)
            return False
        self._hub.attach(socket, user_channel(user_id))
        self._roster.opened(user_id)
        socket.is_present = True
        self._user_sockets.opened(user_id)
        return True

    def _not_now(self, socket: Socket, error: Unavailable, id: FrameId | None) -> None:
        """Whoever was in stays in: the token of before still holds."""
        answer = error_frame(Refusal(ErrorCode.UNAVAILABLE, str(error)), "auth", id)
        if socket.is_present:
            socket.send(answer)
        else:
            socket.close(Close(CloseCode.OVERLOADED, "not ready", answer))

    async def _restore(self, socket: Socket, entries: list[msgspec.Raw]) -> None:
        """Handle each entry of `auth.subscriptions` as the subscribe frame that it is: those of one channel in order,
        the channels side by side."""
        by_channel: dict[str, list[Incoming]] = {}
        for entry in entries:
            try:
                incoming = parse_subscription(entry)
            except FrameRefused as refused:
                socket.send(error_frame(refused, refused.name, refused.id))
                continue
            by_channel.setdefault(_channel_key(incoming.request), []).append(incoming)

        async def in_order(incomings: list[Incoming]) -> None:
            for incoming in incomings:
                await self._perform(socket, incoming)

        await asyncio.gather(*map(in_order, by_channel.values()))

    async def _perform(self, socket: Socket, incoming: Incoming) -> None:
        """Sends, read marks and typing go out in the frames' order and are answered when their answers come; all else
        is done before the next frame is looked at."""
        match incoming.request:
            case Subscribe(target):
                await self._attempt(socket, incoming, self.subscriptions.subscribe(socket, target, incoming.id))
            case Unsubscribe(target):
                self.subscriptions.unsubscribe(socket, target, incoming.id)
            case ChatSend() | ChatDirect() as request:
                await self._send(socket, incoming, request)
            case ChatTyping() as request:
                await self._pipeline(socket, incoming, self._typing(socket, request, incoming.id))
            case ChatRead() as request:
                await self._pipeline(socket, incoming, self._mark_read(socket, request, incoming.id))
            case PresenceGet() as request:
                await self._attempt(socket, incoming, self._presence(socket, request, incoming.id))
            case Auth() | Ping():
                raise AssertionError("the session answers these itself")
            case other:
                assert_never(other)

    async def _pipeline(self, socket: Socket, incoming: Incoming, work: Coroutine[Any, Any, None]) -> None:
        """Begin `work` without awaiting it; at most 64 of a socket are under way, then its reader waits."""
        await socket.in_flight.begin()
        if socket.closing:  # nobody could be answered; the client sends it again elsewhere
            work.close()
            socket.in_flight.end()
            return
        task = self._tasks.create_task(self._attempt(socket, incoming, work))
        task.add_done_callback(lambda _: socket.in_flight.end())

    async def _attempt(self, socket: Socket, incoming: Incoming, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`; whatever goes wrong becomes an error frame."""
        try:
            await work
        except Exception as error:  # the wall around one socket
            self._answer_error(socket, incoming, error)

    def _answer_error(self, socket: Socket, incoming: Incoming, error: Exception) -> None:
        match error:
            case Refusal():
                refusal = error
            case Unavailable():
                refusal = Refusal(ErrorCode.UNAVAILABLE, str(error))
            case _:
                log.error("frame_failed", type=incoming.name, exc_info=error)
                refusal = Refusal(ErrorCode.INTERNAL, "an error of ours; it is in the logs")
        metrics.ERRORS_OUT.labels(refusal.code).inc()
        socket.send(error_frame(refusal, incoming.name, incoming.id))

    # Chat -----------------------------------------------------------------------------------------------------------

    async def _send(self, socket: Socket, incoming: Incoming, request: ChatSend | ChatDirect) -> None:
        """As `_pipeline` does it, but HOT: a callback where that has a task."""
        await socket.in_flight.begin()
        if socket.closing:
            socket.in_flight.end()
            return
        caller, key = caller_of(socket), request.client_message_id
        try:
            if isinstance(request, ChatSend):
                asked = self._backend.send_message(caller, request.chatroom_id, request.message, key)
            else:
                asked = self._backend.send_direct(caller, request.user_id, request.message, key)
        except Refusal as refusal:
            socket.in_flight.end()
            self._answer_error(socket, incoming, refusal)
            return
        asked.add_done_callback(partial(self._sent, socket, incoming))

    def _sent(self, socket: Socket, incoming: Incoming, asked: "asyncio.Future[Reply]") -> None:
        socket.in_flight.end()
        try:
            answer = frame("chat:ack", _ack(read_sent(asked.result())), incoming.id)
        except Exception as error:  # the wall around one socket
            self._answer_error(socket, incoming, error)
        else:
            socket.send(answer)

    async def _typing(self, socket: Socket, request: ChatTyping, id: FrameId | None) -> None:
        mark = await self._backend.set_typing(caller_of(socket), request.chatroom_id, request.is_typing)
        if id is not None:
            socket.send(frame("chat:typing", mark, id))

    async def _mark_read(self, socket: Socket, request: ChatRead, id: FrameId | None) -> None:
        mark = await self._backend.mark_read(caller_of(socket), request.chatroom_id, request.seq, socket.session_id)
        if id is not None:
            socket.send(frame("chat:read", mark, id))

    async def _presence(self, socket: Socket, request: PresenceGet, id: FrameId | None) -> None:
        state = await self._backend.presence(caller_of(socket), tuple(request.user_ids))
        socket.send(frame("presence:state", state, id))

    # Control --------------------------------------------------------------------------------------------------------

    def on_control(self, delivery: Delivery) -> None:
        """What chat_service, notifier and other gateways tell the gateways themselves; see `decisions._control`."""
        kind, _, key = delivery.channel.partition(":")
        match kind, delivery.key:
            case "room", "evict":
                self.subscriptions.relay.evict(delivery.channel, msgspec.json.decode(delivery.frame)["userId"])
            case "room", "recheck":
                self.subscriptions.relay.recheck(delivery.channel)
            case "room", "deleted":
                self.subscriptions.close_room(delivery.channel, key)
            case "user", "sockets":
                self._user_sockets.heard(key, delivery.frame)
            case "control", "standing":
                self.on_standing(msgspec.json.decode(delivery.frame, type=Revocation))
            case _:
                log.error("unknown_control", key=delivery.key)

    def enforce(self, user_id: str) -> None:
        """Close those of a user's sockets whose tokens no longer count."""
        for socket in list(self.connections.by_user.get(user_id, ())):
            identity = socket.session.identity
            if identity is not None:
                try:
                    self._guard.check(identity)
                except Refusal as refusal:
                    socket.close(socket.session.turned_away(refusal))


def _client_code(code: int | None) -> str:
    """A client may close with any code; metrics know those that are common. 1006: it went without one."""
    return str(code) if code in (1000, 1001, 1005, 1006, 1009) else "other"


def _channel_key(request: Request) -> str:
    """What subscriptions have in common that must not be handled side by side."""
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
        client_message_id=message.client_message_id,
        timestamp=message.created_at,
    )
