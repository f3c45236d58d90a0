"""Typed requests from the gateway to the services, shared by WebSocket and REST. Sets ids and deadlines.

Methods raise Refusal with the service's answer, or Unavailable. `send_message` and `send_direct` return a future
instead. Awaiting it raises Unavailable, and `read_sent` raises the refusal that its reply carries. Under overload the
two methods themselves raise Refusal at once.
"""

import asyncio
from typing import TypedDict, TypeVar

from gateway.background import Spawn
from gateway.commands.router import CommandRouter
from gateway.known_symbols import KnownSymbols
from shared.bus.bus import Bus
from shared.bus.pending_requests import read_reply
from shared.bus.topology import (
    CHAT_PRESENCE,
    CHAT_QUERY,
    MARKET_QUERY,
    NOTIFIER_QUERY,
)
from shared.commands import chat, chat_queries, market, notifier
from shared.commands.activity import CheckUnread, ListUnread, RoomsUnread
from shared.commands.command import GATEWAY, Caller, ReplayedFrames, Reply, ReplyError, ServiceRequest
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.ids import Prefix, direct_room_id, new_id
from shared.protocol.message_input import MessageInput
from shared.protocol.server_frames import PresenceState, ReadMark, TypingMark
from shared.telemetry import correlation

R = TypeVar("R")


class RequestFields(TypedDict):
    """The fields that every command has."""

    id: str
    caller: Caller
    request_id: str | None


class ServiceRequestFields(RequestFields):
    """The fields that every `ServiceRequest` has."""

    deadline_ms: int


class RoomCommandFields(RequestFields):
    """The fields that every `RoomCommand` has."""

    expires_at_monotonic_ms: int


def read_sent(reply: Reply) -> chat.Sent:
    """Return the stored message of a send. Raises Refusal."""
    return read_reply(reply, chat.Sent)


class Backend:
    """Client for chat_service, market_feed and notifier over the bus."""

    def __init__(self, bus: Bus, router: CommandRouter, spawn: Spawn) -> None:
        self._bus = bus
        self._router = router
        self._known_symbols = KnownSymbols(lambda symbols: self.prices(GATEWAY, tuple(symbols)), spawn)

    async def room_command(self, command: chat.RoomCommand, reply: type[R]) -> R:
        """Send a command to the owner of its room and return the answer."""
        return read_reply(await self._router.ask(command), reply)

    async def chat_request(self, request: ServiceRequest, reply: type[R]) -> R:
        """Send a request to any chat_service replica."""
        return await self._bus.request(CHAT_QUERY, request, reply)

    async def market_request(self, request: ServiceRequest, reply: type[R]) -> R:
        """Send a request to market_feed; the owner of the symbols answers."""
        return await self._bus.request(MARKET_QUERY, request, reply)

    async def notifier_request(self, request: ServiceRequest, reply: type[R]) -> R:
        """Send a request to any notifier replica."""
        return await self._bus.request(NOTIFIER_QUERY, request, reply)

    # Requests shared by WebSocket and REST --------------------------------------------------------------------------

    def send_message(
        self, caller: Caller, room_id: str, message: MessageInput, refusal: Refusal | None = None
    ) -> "asyncio.Future[Reply]":
        """Store and deliver a message. Read the reply with `read_sent`.

        With `refusal`, the room's owner answers with that refusal, unless the message repeats a stored one. A refused
        message is charged like a stored one, unless the refusal is UNAVAILABLE or INTERNAL.
        """
        self._router.check_backlog(room_id)  # before any work: under overload most are refused
        message_id = new_id(Prefix.MESSAGE)
        command = chat.SendMessage(
            id=message_id,
            expires_at_monotonic_ms=self._router.expires_at_monotonic_ms(),
            caller=caller,
            request_id=correlation.current(),
            room_id=room_id,
            message_id=message_id,
            message=message.text(),
            client_message_id=message.client_message_id,
            extras=message.extras(),
            refusal=None if refusal is None else ReplyError.of(refusal),
        )
        return self._router.ask(command)

    def send_direct(
        self, caller: Caller, user_id: str, message: MessageInput, refusal: Refusal | None = None
    ) -> "asyncio.Future[Reply]":
        """Store and deliver a message in the direct room of two users; see `send_message`."""
        if user_id == caller.user_id:
            raise Refusal.invalid("userId", "must be another user")
        room_id = direct_room_id(caller.user_id, user_id)
        self._router.check_backlog(room_id)
        message_id = new_id(Prefix.MESSAGE)
        command = chat.SendDirect(
            id=message_id,
            expires_at_monotonic_ms=self._router.expires_at_monotonic_ms(),
            caller=caller,
            request_id=correlation.current(),
            room_id=room_id,
            message_id=message_id,
            to_user_id=user_id,
            message=message.text(),
            client_message_id=message.client_message_id,
            extras=message.extras(),
            refusal=None if refusal is None else ReplyError.of(refusal),
        )
        return self._router.ask(command)

    async def refusal_of_symbols(self, message: MessageInput) -> Refusal | None:
        """Return the refusal of a message whose symbols are unknown or cannot be looked up, for `send_message`."""
        if not message.symbols:
            return None
        try:
            unknown = await self._known_symbols.unknown(message.symbols)
        except Refusal as refusal:
            return refusal
        except Unavailable as error:
            return Refusal(ErrorCode.UNAVAILABLE, str(error))
        return Refusal.invalid("symbols", f"unknown: {', '.join(unknown)}") if unknown else None

    async def subscribe_room(self, caller: Caller, room_id: str) -> chat.RoomHead:
        """Return the room's head if the caller may subscribe to it. Raises Refusal otherwise."""
        return await self.room_command(
            chat.SubscribeRoom(**self.room_command_fields(caller), room_id=room_id), chat.RoomHead
        )

    async def mark_read(self, caller: Caller, room_id: str, seq: int, session_id: str = "") -> ReadMark:
        """Move the caller's read mark."""
        command = chat.MarkRead(**self.room_command_fields(caller), room_id=room_id, seq=seq, session_id=session_id)
        return await self.room_command(command, ReadMark)

    async def set_typing(self, caller: Caller, room_id: str, is_typing: bool) -> TypingMark:
        """Announce to the room's other members that the caller started or stopped typing."""
        command = chat.SetTyping(**self.room_command_fields(caller), room_id=room_id, is_typing=is_typing)
        return await self.room_command(command, TypingMark)

    async def replay_messages(self, caller: Caller, room_id: str, after: int, through: int) -> ReplayedFrames:
        """Return the messages with `after` < seq ≤ `through`, as frames."""
        query = chat_queries.ReplayMessages(
            **self.request_fields(caller), room_id=room_id, after=after, through=through
        )
        return await self.chat_request(query, ReplayedFrames)

    async def replay_entries(
        self, caller: Caller, room_id: str, after: int, through: int
    ) -> chat_queries.ReplayedEntries:
        """Return the entries of a room's log with `after` < rev ≤ `through` that a majority has."""
        query = chat_queries.ReplayEntries(**self.request_fields(caller), room_id=room_id, after=after, through=through)
        return await self.chat_request(query, chat_queries.ReplayedEntries)

    async def recent_direct_messages(
        self, caller: Caller, user_ids: tuple[str, ...], since_ms: int
    ) -> chat_queries.RecentDirectMessages:
        """Return the positions of the log entries since `since_ms` in the direct rooms of these users."""
        query = chat_queries.ListRecentDirectMessages(
            **self.request_fields(caller), user_ids=user_ids, since_ms=since_ms
        )
        return await self.chat_request(query, chat_queries.RecentDirectMessages)

    async def unread_counts(self, caller: Caller) -> RoomsUnread:
        """Return the unread counts of all rooms of the caller."""
        return await self.chat_request(ListUnread(**self.request_fields(caller)), RoomsUnread)

    async def check_unread(self, pairs: tuple[tuple[str, str], ...]) -> RoomsUnread:
        """Return the unread counts of at most 500 pairs of (user id, room id); non-members are left out."""
        return await self.chat_request(CheckUnread(**self.request_fields(GATEWAY), pairs=pairs), RoomsUnread)

    async def presence(self, caller: Caller, user_ids: tuple[str, ...]) -> PresenceState:
        """Return the presence of each user."""
        return await self.chat_request(
            chat_queries.GetPresence(**self.request_fields(caller), user_ids=user_ids), PresenceState
        )

    async def report_presence(self, report: chat_queries.ReportPresence) -> chat_queries.PresenceReported:
        """Report a batch of users who came or went; an empty batch renews this gateway's presence lease."""
        return await self._bus.request(CHAT_PRESENCE, report, chat_queries.PresenceReported)

    async def prices(self, caller: Caller, symbols: tuple[str, ...] | None) -> market.Prices:
        """Return the latest prices of these symbols, or of all if None."""
        return await self.market_request(
            market.GetPrices(**self.request_fields(caller), symbols=symbols), market.Prices
        )

    async def open_inbox(self, caller: Caller, since: int | None) -> notifier.InboxHead:
        """Return the head of the caller's inbox and the notifications after `since`."""
        return await self.notifier_request(
            notifier.OpenInbox(**self.request_fields(caller), since=since), notifier.InboxHead
        )

    async def replay_inbox(self, caller: Caller, after: int, through: int) -> ReplayedFrames:
        """Return the notifications with `after` < seq ≤ `through`, as frames."""
        query = notifier.ReplayInbox(**self.request_fields(caller), after=after, through=through)
        return await self.notifier_request(query, ReplayedFrames)

    def room_command_fields(self, caller: Caller) -> RoomCommandFields:
        """Return the fields that every room command has."""
        return {**_fields(caller), "expires_at_monotonic_ms": self._router.expires_at_monotonic_ms()}

    def request_fields(self, caller: Caller) -> ServiceRequestFields:
        """Return the fields that every request to any process of a service has."""
        return {**_fields(caller), "deadline_ms": self._bus.deadline_ms()}


def _fields(caller: Caller) -> RequestFields:
    return {"id": new_id(Prefix.COMMAND), "caller": caller, "request_id": correlation.current()}
