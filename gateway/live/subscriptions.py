"""What a socket subscribes to: asking whether it may, the answer, what was missed, and the end of it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, assert_never

from gateway.backend import Backend
from gateway.fanout.batch import Batch
from gateway.fanout.hub import Hub, send
from gateway.fanout.relay import Relay
from gateway.fanout.replays import Replays
from gateway.fanout.wire import text_frame
from gateway.live.connections import Socket
from shared.bus.delivery import ALL_CHANNEL, community_channel, inbox_channel, market_channel, room_channel
from shared.commands import chat
from shared.commands.command import GATEWAY, REPLAY_MAX, Caller, ReplayedFrames
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.protocol.client_frames import (
    ChatroomTarget,
    CommunityTarget,
    MarketTarget,
    NotificationsTarget,
    Target,
    channel_name,
)
from shared.protocol.server_frames import (
    ChatroomDeletedData,
    ChatroomSubscribedData,
    CommunitySubscribedData,
    MarketSubscribedData,
    NotificationsSubscribedData,
    UnsubscribedData,
    frame,
)
from shared.protocol.validation import FrameId


class Subscriptions:
    """The subscriptions of all sockets of one gateway process."""

    relay: Relay  # set before the first connection

    def __init__(self, backend: Backend, hub: Hub, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._backend = backend
        self._hub = hub
        self._replays = Replays(self._read_history, spawn)

    async def _read_history(self, room_id: str, after: int, through: int) -> ReplayedFrames:
        """For whoever may listen: the partition has said of each that it may, and up to where."""
        return await self._backend.replay_messages(GATEWAY, room_id, after, through)

    async def subscribe(self, socket: Socket, target: Target, id: FrameId | None) -> None:
        """Subscribe and answer. Raises Refusal, or Unavailable; then the subscription is as it was before."""
        match target:
            case ChatroomTarget():
                await self._subscribe_room(socket, target, id)
            case NotificationsTarget():
                await self._subscribe_inbox(socket, target, id)
            case MarketTarget():
                await self._subscribe_market(socket, target, id)
            case CommunityTarget():
                await self._subscribe_community(socket, target, id)
            case _:
                assert_never(target)

    async def _subscribe_room(self, socket: Socket, target: ChatroomTarget, id: FrameId | None) -> None:
        name = room_channel(target.chatroom_id)
        socket.session.admit(target, name)
        try:
            await self.listen(socket, name)
            head, recovered, missed = await self._ask_room(socket, target)
            while self._hub.overtaken(socket, name):  # the room has turned private meanwhile, or the broker was away
                head, recovered, missed = await self._ask_room(socket, target)
        except BaseException as error:
            self._end_attempt(socket, name, error)
            raise
        finally:
            socket.session.answered(name)
        data = ChatroomSubscribedData(
            chatroom_id=target.chatroom_id,
            seq=head.seq,
            recovered=recovered,
            replayed=len(missed),
            active_now=head.active_now,
        )
        self._admit(socket, name, head.seq, [frame("subscribed", data, id), *missed], recovered)

    async def _ask_room(self, socket: Socket, target: ChatroomTarget) -> tuple[chat.RoomHead, bool, list[bytes]]:
        """Where the room stands; whether `since` could be met; the frames that were missed. Raises Refusal."""
        caller = caller_of(socket)
        head = await self._backend.subscribe_room(caller, target.chatroom_id)
        if target.since is None or not 0 <= head.seq - target.since <= REPLAY_MAX:
            return head, False, []
        if head.seq == target.since:
            return head, True, []
        replayed = await self._replays.read(target.chatroom_id, target.since, head.seq)
        recovered = len(replayed) == head.seq - target.since  # not so when they are over 8 MB in all
        shown = self._hub.shown_unasked(socket, room_channel(target.chatroom_id))
        frames = enumerate(replayed if recovered else (), target.since + 1)
        return head, recovered, [item for seq, item in frames if seq not in shown]

    async def _subscribe_inbox(self, socket: Socket, target: NotificationsTarget, id: FrameId | None) -> None:
        caller = caller_of(socket)
        if target.user_id not in (None, caller.user_id):
            raise Refusal(ErrorCode.FORBIDDEN, "these are another user's notifications")
        name = inbox_channel(caller.user_id)
        socket.session.admit(target, name)
        try:
            await self.listen(socket, name)
            await self.listen(socket, ALL_CHANNEL)
            head = await self._backend.open_inbox(caller, target.since)
        except BaseException as error:
            self._end_attempt(socket, name, error)
            if name not in socket.session.subscriptions:
                self._leave(socket, ALL_CHANNEL)
            raise
        finally:
            socket.session.answered(name)
        recovered = target.since is not None and head.recovered
        data = NotificationsSubscribedData(
            user_id=caller.user_id, seq=head.seq, recovered=recovered, replayed=len(head.frames)
        )
        self._admit(socket, name, head.seq, [frame("subscribed", data, id), *map(bytes, head.frames)], recovered)
        self._hub.attach(socket, ALL_CHANNEL)

    async def _subscribe_market(self, socket: Socket, target: MarketTarget, id: FrameId | None) -> None:
        socket.session.admit(target, "")
        symbols = list(dict.fromkeys(target.symbols))
        names = {symbol: market_channel(symbol) for symbol in symbols}
        try:
            await asyncio.gather(*(self.listen(socket, name) for name in names.values()))
            unseen = [symbol for symbol in symbols if self._hub.channels[names[symbol]].newest is None]
            unknown = set(await self.relay.snapshot(unseen)) if unseen else set()
        except BaseException:
            for symbol, name in names.items():
                rate = socket.session.symbols.get(symbol)
                if rate is None:
                    self._leave(socket, name)
                else:
                    self._hub.attach_price(socket, name, rate, self._loop_time())
            raise
        known = [symbol for symbol in symbols if symbol not in unknown]
        data = MarketSubscribedData(symbols=known, unknown=[symbol for symbol in symbols if symbol in unknown])
        socket.send(frame("subscribed", data, id))
        for symbol in data.unknown:
            self._leave(socket, names[symbol])
        for symbol in known:
            newest = self._hub.attach_price(socket, names[symbol], target.max_rate, self._loop_time())
            if newest is not None:
                socket.write(Batch([newest]))
            socket.quoted(symbol, target.max_rate)

    async def _subscribe_community(self, socket: Socket, target: CommunityTarget, id: FrameId | None) -> None:
        identity = socket.session.identity
        allowed = None if identity is None else identity.communities
        if allowed is not None and target.community_id not in allowed:
            raise Refusal(ErrorCode.FORBIDDEN, "the token does not name this community")
        name = community_channel(target.community_id)
        socket.session.admit(target, name)
        try:
            await self.listen(socket, name)
        except BaseException as error:
            self._end_attempt(socket, name, error)
            raise
        finally:
            socket.session.answered(name)
        answer = frame("subscribed", CommunitySubscribedData(community_id=target.community_id), id)
        if not self._hub.attach(socket, name, [text_frame(answer)]):
            raise Refusal.not_found("community")
        socket.subscribed(name)

    def end_communities(self, socket: Socket) -> None:
        """The token was renewed: the subscriptions that it does not name any more end."""
        for community_id in socket.session.communities_lost():
            self.unsubscribe(socket, CommunityTarget(community_id=community_id), None)

    def unsubscribe(self, socket: Socket, target: Target, id: FrameId | None) -> None:
        """Unsubscribe and answer."""
        channel = channel_name(target)
        match target:
            case ChatroomTarget(chatroom_id):
                names, data = [room_channel(chatroom_id)], UnsubscribedData(channel=channel, chatroom_id=chatroom_id)
            case NotificationsTarget():
                names = [inbox_channel(socket.user_id), ALL_CHANNEL]
                data = UnsubscribedData(channel=channel, user_id=socket.user_id)
            case MarketTarget(symbols):
                names = [market_channel(symbol) for symbol in symbols]
                data = UnsubscribedData(channel=channel, symbols=tuple(symbols))
                for symbol in symbols:
                    socket.unquoted(symbol)
            case CommunityTarget(community_id):
                names = [community_channel(community_id)]
                data = UnsubscribedData(channel=channel, community_id=community_id)
            case _:
                assert_never(target)
        for name in names:
            self._leave(socket, name)
        socket.send(frame("unsubscribed", data, id))

    async def listen(self, socket: Socket, name: str) -> None:
        """Join a channel whose shard reaches this gateway. Raises Unavailable; then the socket is not on it."""
        self._hub.join(socket, name)
        await self.relay.want(name)

    def _end_attempt(self, socket: Socket, name: str, error: BaseException) -> None:
        """A subscription did not come about. A worker that is away does not end the one that was there before."""
        is_away = isinstance(error, Unavailable) or (isinstance(error, Refusal) and error.code is ErrorCode.UNAVAILABLE)
        if not is_away:
            self._leave(socket, name)
        elif not self._hub.resume(socket, name, self._loop_time()):
            self._hub.linger(socket, name, self._loop_time())

    def _admit(self, socket: Socket, name: str, seq: int, frames: list[bytes], replayed: bool) -> None:
        """Raises NOT_FOUND if the socket was evicted while it was asked for."""
        greeting = [text_frame(item) for item in frames]
        if not self._hub.admit(socket, name, seq, greeting, self._loop_time(), replayed=replayed):
            raise Refusal.not_found("room")
        socket.subscribed(name)
        self.relay.schedule()

    def _leave(self, socket: Socket, name: str) -> None:
        socket.unsubscribed(name)
        self.relay.leave(socket, name)

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()

    def forget(self, socket: Socket) -> None:
        """The socket is gone."""
        for name in self._hub.drop(socket):
            self.relay.release(name)

    def close_room(self, channel: str, room_id: str) -> None:
        """The room is deleted: tell its subscribers, and unsubscribe them."""
        farewell = text_frame(frame("chatroom:deleted", ChatroomDeletedData(chatroom_id=room_id)))
        listeners = self._hub.listeners_of(channel)
        for sink in self._hub.sinks_of(channel):  # who is only asking will be told that there is no such room
            self.relay.leave(sink, channel)
            sink.unsubscribed(channel)
        for sink in listeners:
            send(sink, [farewell])


def caller_of(socket: Socket) -> Caller:
    """The user of an authenticated socket."""
    identity = socket.session.identity
    assert identity is not None  # noqa: S101 - the session lets nothing through before
    return identity.caller
