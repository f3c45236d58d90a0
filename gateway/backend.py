"""What the gateway asks of the services, for WebSocket and REST alike: ids and deadlines are made here.

Every method raises Refusal with the service's answer, or Unavailable.
"""

import asyncio
from typing import TypedDict, TypeVar

from shared.bus.bus import Bus
from shared.bus.pending_requests import read_reply
from shared.bus.topology import (
    CHAT_PRESENCE,
    CHAT_QUERY,
    MARKET_QUERY,
    NOTIFIER_QUERY,
    partition_of,
    partition_queue,
)
from shared.commands import chat, market, notifier
from shared.commands.command import Caller, Command, ReplayedFrames, Reply
from shared.errors import Refusal
from shared.ids import Prefix, direct_room_id, new_id
from shared.protocol.server_frames import PresenceState, ReadMark, TypingMark
from shared.telemetry import correlation

R = TypeVar("R")


class CommandHead(TypedDict):
    """The fields that every command begins with."""

    id: str
    deadline_ms: int
    caller: Caller
    request_id: str | None


def read_sent(reply: Reply) -> chat.Sent:
    """What came of a message. Raises Refusal."""
    return read_reply(reply, chat.Sent)


class Backend:
    """Commands to chat_service, market_feed and notifier."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def room(self, command: chat.RoomCommand, reply: type[R]) -> R:
        """To the one writer of the command's room."""
        return await self._bus.request(_queue_of(command.room_id), command, reply, expires=False)

    async def chat_query(self, query: Command, reply: type[R]) -> R:
        """To any chat_service."""
        return await self._bus.request(CHAT_QUERY, query, reply)

    async def market_query(self, query: Command, reply: type[R]) -> R:
        """To any market_feed."""
        return await self._bus.request(MARKET_QUERY, query, reply)

    async def notifier_query(self, query: Command, reply: type[R]) -> R:
        """To any notifier."""
        return await self._bus.request(NOTIFIER_QUERY, query, reply)

    # The calls that WebSocket and REST share ------------------------------------------------------------------------

    def send_message(
        self, caller: Caller, room_id: str, text: str, client_message_id: str | None
    ) -> "asyncio.Future[Reply]":
        """Store and deliver a message. `read_sent` reads the reply."""
        message_id = new_id(Prefix.MESSAGE)
        command = chat.SendMessage(
            id=message_id,
            deadline_ms=self._bus.deadline_ms(),
            caller=caller,
            request_id=correlation.current(),
            room_id=room_id,
            message_id=message_id,
            message=text,
            client_message_id=client_message_id,
        )
        return self._bus.ask(_queue_of(room_id), command, expires=False)

    def send_direct(
        self, caller: Caller, user_id: str, text: str, client_message_id: str | None
    ) -> "asyncio.Future[Reply]":
        """Store and deliver a message in the one room of two users. `read_sent` reads the reply."""
        if user_id == caller.user_id:
            raise Refusal.invalid("userId", "must be another user")
        message_id, room_id = new_id(Prefix.MESSAGE), direct_room_id(caller.user_id, user_id)
        command = chat.SendDirect(
            id=message_id,
            deadline_ms=self._bus.deadline_ms(),
            caller=caller,
            request_id=correlation.current(),
            room_id=room_id,
            message_id=message_id,
            to_user_id=user_id,
            message=text,
            client_message_id=client_message_id,
        )
        return self._bus.ask(_queue_of(room_id), command, expires=False)

    async def subscribe_room(self, caller: Caller, room_id: str) -> chat.RoomHead:
        """May the caller listen, and from where on?"""
        return await self.room(chat.SubscribeRoom(**self.head(caller), room_id=room_id), chat.RoomHead)

    async def mark_read(self, caller: Caller, room_id: str, seq: int, session_id: str = "") -> ReadMark:
        """Move the caller's read mark."""
        command = chat.MarkRead(**self.head(caller), room_id=room_id, seq=seq, session_id=session_id)
        return await self.room(command, ReadMark)

    async def set_typing(self, caller: Caller, room_id: str, is_typing: bool) -> TypingMark:
        """Tell the room's others that the caller types."""
        command = chat.SetTyping(**self.head(caller), room_id=room_id, is_typing=is_typing)
        return await self.room(command, TypingMark)

    async def replay_messages(self, caller: Caller, room_id: str, after: int, through: int) -> ReplayedFrames:
        """Messages with `after` < seq ≤ `through`, as frames."""
        query = chat.ReplayMessages(**self.head(caller), room_id=room_id, after=after, through=through)
        return await self.chat_query(query, ReplayedFrames)

    async def recent_directs(self, caller: Caller, user_ids: tuple[str, ...], since_ms: int) -> chat.DirectPosts:
        """What was said since then in the direct rooms of these users."""
        query = chat.RecentDirects(**self.head(caller), user_ids=user_ids, since_ms=since_ms)
        return await self.chat_query(query, chat.DirectPosts)

    async def presence(self, caller: Caller, user_ids: tuple[str, ...]) -> PresenceState:
        """Who is online."""
        return await self.chat_query(chat.GetPresence(**self.head(caller), user_ids=user_ids), PresenceState)

    async def report_presence(self, report: chat.ReportPresence) -> chat.PresenceReported:
        """Renew this gateway's lease, and tell who came and went."""
        return await self._bus.request(CHAT_PRESENCE, report, chat.PresenceReported)

    async def prices(self, caller: Caller, symbols: tuple[str, ...] | None) -> market.Prices:
        """The latest prices of these symbols, or of all."""
        return await self.market_query(market.GetPrices(**self.head(caller), symbols=symbols), market.Prices)

    async def open_inbox(self, caller: Caller, since: int | None) -> notifier.InboxHead:
        """The head of the caller's inbox and what came after `since`."""
        return await self.notifier_query(notifier.OpenInbox(**self.head(caller), since=since), notifier.InboxHead)

    async def replay_inbox(self, caller: Caller, after: int, through: int) -> ReplayedFrames:
        """Notifications with `after` < seq ≤ `through`, as frames."""
        query = notifier.ReplayInbox(**self.head(caller), after=after, through=through)
        return await self.notifier_query(query, ReplayedFrames)

    def head(self, caller: Caller) -> CommandHead:
        """The head of a command that is asked now."""
        return {
            "id": new_id(Prefix.COMMAND),
            "deadline_ms": self._bus.deadline_ms(),
            "caller": caller,
            "request_id": correlation.current(),
        }


def _queue_of(room_id: str) -> str:
    return partition_queue(partition_of(room_id))
