"""Subscriptions of sockets: check access, answer, replay missed items, unsubscribe."""

import asyncio
from contextlib import ExitStack
from typing import assert_never

import msgspec

from gateway.backend import Backend
from gateway.fanout.activity_feed import ActivityFeed
from gateway.fanout.batch import Batch
from gateway.fanout.channel import Channel
from gateway.fanout.hub import Hub
from gateway.fanout.lane import send
from gateway.fanout.membership import ChannelMembership, farewell_of
from gateway.fanout.price_snapshot import fetch_prices
from gateway.fanout.wire import text_frame
from gateway.live.attempts import Attempts
from gateway.live.missed_items import InboxAnswer, MissedItems, RoomAnswer
from gateway.live.socket import Socket
from shared.bus.delivery import (
    ACTIVITY_CHANNEL,
    ALL_CHANNEL,
    EndReason,
    community_channel,
    inbox_channel,
    market_channel,
    room_channel,
)
from shared.errors import ErrorCode, Refusal
from shared.protocol.client_frames import (
    ActivityTarget,
    ChatroomTarget,
    CommunityTarget,
    MarketTarget,
    NotificationsTarget,
    Request,
    Subscribe,
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
from shared.protocol.validation import FrameId, is_symbol


class Subscriptions:
    """The subscriptions of all sockets of one gateway process."""

    def __init__(
        self,
        backend: Backend,
        hub: Hub,
        membership: ChannelMembership,
        missed_items: MissedItems,
        activity: ActivityFeed,
    ) -> None:
        self._backend = backend
        self._hub = hub
        self._membership = membership
        self._attempts = Attempts(hub, membership)
        self._missed_items = missed_items
        self._activity = activity

    # Subscribe ------------------------------------------------------------------------------------------------------

    async def subscribe(self, socket: Socket, target: Target, id: FrameId | None) -> None:
        """Subscribe and answer. Raises Refusal or Unavailable.

        After Unavailable or a retryable refusal, the socket's earlier subscription to the target continues. Any other
        refusal during the attempt ends that earlier subscription too. Earlier subscriptions to prices and to `activity`
        always continue.
        """
        match target:
            case ChatroomTarget():
                await self._subscribe_room(socket, target, id)
            case NotificationsTarget():
                await self._subscribe_inbox(socket, target, id)
            case MarketTarget():
                await self._subscribe_market(socket, target, id)
            case CommunityTarget():
                await self._subscribe_community(socket, target, id)
            case ActivityTarget():
                await self._subscribe_activity(socket, target, id)
            case _:
                assert_never(target)

    def expect(self, socket: Socket, request: Request) -> None:
        """Buffer items of a room whose subscription is still queued.

        Otherwise a direct message would reach the socket before the earlier ones that the answer replays.
        """
        match request:
            case Subscribe(ChatroomTarget() as target) if not self._hub.is_on(socket, room_channel(target.chatroom_id)):
                name = room_channel(target.chatroom_id)
                try:
                    socket.session.reserve(target, name)
                except Refusal:
                    return  # the attempt itself answers with the refusal
                self._hub.join(socket, name)

    async def _subscribe_room(self, socket: Socket, target: ChatroomTarget, id: FrameId | None) -> None:
        name = room_channel(target.chatroom_id)
        with ExitStack() as held:
            async with self._attempts.attempt(socket, target, [name]) as [channel]:
                answer = await self._missed_items.of_room(socket, target, channel, held)
                while channel.take_answer_outdated(socket):  # the room may have become private, or lines may be lost
                    held.close()
                    answer = await self._missed_items.of_room(socket, target, channel, held)
            self._answer_room(socket, target, channel, answer, id)
            held.pop_all()  # from here on the socket releases the hold
            if answer.hold is not None:
                socket.hold_until_sent(answer.hold)

    def _answer_room(
        self, socket: Socket, target: ChatroomTarget, channel: Channel, answer: RoomAnswer, id: FrameId | None
    ) -> None:
        data = ChatroomSubscribedData(
            chatroom_id=target.chatroom_id,
            seq=answer.head.seq,
            rev=answer.head.rev,
            recovered=answer.recovered,
            replayed=len(answer.missed),
            active_now=answer.head.active_now,
        )
        greeting = [text_frame(frame("subscribed", data, id)), *answer.missed]
        self._go_live(socket, channel, answer.head.rev, greeting, replayed=answer.recovered)

    async def _subscribe_inbox(self, socket: Socket, target: NotificationsTarget, id: FrameId | None) -> None:
        caller = socket.caller
        if target.user_id not in (None, caller.user_id):
            raise Refusal(ErrorCode.FORBIDDEN, "these are another user's notifications")
        name = inbox_channel(caller.user_id)
        with ExitStack() as held:
            async with self._attempts.attempt(socket, target, [name, ALL_CHANNEL]) as [inbox, everybody]:
                answer = await self._missed_items.of_inbox(socket, target, held)
            self._answer_inbox(socket, target, inbox, answer, id)
            held.pop_all()  # from here on the socket releases the hold
            socket.hold_until_sent(answer.hold)
        everybody.go_live_unordered(socket)

    def _answer_inbox(
        self, socket: Socket, target: NotificationsTarget, inbox: Channel, answer: InboxAnswer, id: FrameId | None
    ) -> None:
        head, missed = answer.head, answer.missed
        recovered = target.since is not None and head.recovered
        data = NotificationsSubscribedData(
            user_id=socket.user_id, seq=head.seq, recovered=recovered, replayed=len(missed)
        )
        greeting = [text_frame(frame("subscribed", data, id)), *missed]
        self._go_live(socket, inbox, head.seq, greeting, replayed=recovered)

    async def _subscribe_market(self, socket: Socket, target: MarketTarget, id: FrameId | None) -> None:
        asked = list(dict.fromkeys(target.symbols))
        symbols = list(filter(is_symbol, asked))
        target = msgspec.structs.replace(target, symbols=symbols)
        async with self._attempts.attempt(socket, target, [market_channel(symbol) for symbol in symbols]) as joined:
            channels = dict(zip(symbols, joined, strict=True))
            unseen = [symbol for symbol, channel in channels.items() if channel.prices.newest is None]
            unknown = set(await fetch_prices(self._backend, self._hub, unseen)) if unseen else set()
        known = dict.fromkeys(symbol for symbol in symbols if symbol not in unknown)
        data = MarketSubscribedData(symbols=list(known), unknown=[symbol for symbol in asked if symbol not in known])
        socket.send(frame("subscribed", data, id))
        for symbol in unknown:
            self._attempts.leave(socket, market_channel(symbol))
        for symbol in known:
            newest = channels[symbol].go_live_prices(socket, target.max_rate, _now_s())
            if newest is not None:
                socket.write(Batch([newest]))
            socket.subscribed_prices(symbol, target.max_rate)

    async def _subscribe_community(self, socket: Socket, target: CommunityTarget, id: FrameId | None) -> None:
        identity = socket.session.identity
        allowed = None if identity is None else identity.communities
        if allowed is not None and target.community_id not in allowed:
            raise Refusal(ErrorCode.FORBIDDEN, "the token does not name this community")
        name = community_channel(target.community_id)
        async with self._attempts.attempt(socket, target, [name]) as [channel]:
            pass  # the token is enough for access
        answer = frame("subscribed", CommunitySubscribedData(community_id=target.community_id), id)
        if not channel.go_live_unordered(socket, [text_frame(answer)]):
            raise Refusal.not_found("community")
        socket.subscribed(name)

    async def _subscribe_activity(self, socket: Socket, target: ActivityTarget, id: FrameId | None) -> None:
        socket.session.reserve(target, ACTIVITY_CHANNEL)
        try:
            data = await self._activity.subscribe(socket)
        finally:
            socket.session.release(ACTIVITY_CHANNEL)
        socket.send(frame("subscribed", data, id))
        socket.subscribed(ACTIVITY_CHANNEL)

    def _go_live(self, socket: Socket, channel: Channel, seq: int, greeting: list[bytes], *, replayed: bool) -> None:
        """Write the answer and go live. Raises NOT_FOUND if the socket was evicted during the attempt."""
        is_live = channel.go_live(socket, seq, greeting, _now_s(), replayed=replayed)
        self._membership.finish_evictions()  # going live may release awaited items, and these may evict other sockets
        if not is_live:
            raise Refusal.not_found("room")
        socket.subscribed(channel.name)

    # Unsubscribe ----------------------------------------------------------------------------------------------------

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
                    socket.unsubscribed_prices(symbol)
            case CommunityTarget(community_id):
                names = [community_channel(community_id)]
                data = UnsubscribedData(channel=channel, community_id=community_id)
            case ActivityTarget():
                names, data = [], UnsubscribedData(channel=channel)
                self._activity.forget(socket)
                socket.unsubscribed(ACTIVITY_CHANNEL)
            case _:
                assert_never(target)
        for name in names:
            self._attempts.leave(socket, name)
        socket.send(frame("unsubscribed", data, id))

    def end_communities(self, socket: Socket) -> None:
        """Unsubscribe the communities that a renewed token no longer names."""
        for community_id in socket.session.revoked_communities():
            self.unsubscribe(socket, CommunityTarget(community_id=community_id), None)

    def close_room(self, room_id: str) -> None:
        """Announce to the subscribers of a room that it is deleted, and unsubscribe them.

        Sockets that are still subscribing get NOT_FOUND as their answer instead.
        """
        name = room_channel(room_id)
        channel = self._hub.channels.get(name)
        if channel is None:
            return
        deleted = text_frame(frame("chatroom:deleted", ChatroomDeletedData(chatroom_id=room_id)))
        listeners = channel.listeners()
        for sink in list(channel.sinks()):
            self._membership.leave(sink, name)
            sink.unsubscribed(name)
        for sink in listeners:
            send(sink, [deleted, farewell_of(room_id, EndReason.DELETED)])

    def forget(self, socket: Socket) -> None:
        """End all subscriptions of a closed socket."""
        self._membership.forget(socket)
        self._activity.forget(socket)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
