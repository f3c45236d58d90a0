"""Subscriptions of the application, the position in each ordered channel, and the deduplication of frames. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, assert_never

import msgspec

from realtime_client.cursor import Cursor, Fresh, Missed, missed_of
from realtime_client.protocol import (
    Ack,
    ActivitySubscription,
    CommunitySubscription,
    InboxSubscription,
    MarketSubscription,
    RoomSubscription,
    Subscription,
)

DIRECT_ROOMS_MAX = 50

# Types that begin with one of these are the server's own. Every other type with a colon is an event, and one with a
# `seq` comes from the inbox.
_SYSTEM = frozenset({"auth", "chat", "chatroom", "market", "member", "presence", "room", "server", "subscription"})
_CHANGES = frozenset({"chat:updated", "chat:deleted", "chat:reaction", "chat:pinned"})

INBOX = InboxSubscription()


class _Placement(msgspec.Struct, frozen=True, rename="camel"):
    """Fields that place an event in its channel."""

    seq: int | None = None
    rev: int | None = None
    chatroom_id: str = ""
    symbol: str = ""
    stale: bool | None = None


class _SubscribedAnswer(msgspec.Struct, frozen=True):
    """Fields of a `subscribed` answer that determine the position."""

    seq: int = 0
    rev: int | None = None
    recovered: bool = False
    unknown: tuple[str, ...] = ()


class _Quote(msgspec.Struct):
    """A subscribed symbol. `is_confirmed` states whether the server has confirmed the subscription."""

    max_rate: float
    seq: int | None = None
    is_confirmed: bool = False


class Interest:
    """Subscriptions of one client and its position in each; a subscription outlives connections."""

    def __init__(self) -> None:
        self._rooms: dict[str, Cursor] = {}
        self._inbox: Cursor | None = None
        self._quotes: dict[str, _Quote] = {}
        self._communities: dict[str, None] = {}  # in order
        self._has_activity = False
        self._unsubscribing: set[str] = set()  # rooms until the server confirms; their messages are dropped

    def add(self, target: Subscription) -> None:
        """Store a subscription of the application. A known position takes precedence over `since`."""
        match target:
            case RoomSubscription(room_id, since, since_rev):
                cursor = self._rooms.setdefault(room_id, Cursor(since, since_rev, is_subscribed=True))
                cursor.is_subscribed = True
                if cursor.position is None and cursor.rev is None:
                    cursor.position, cursor.rev = since, since_rev
            case InboxSubscription(_, since):
                self._inbox = self._inbox or Cursor(since, is_subscribed=True)
            case MarketSubscription(symbols, max_rate):
                for symbol in symbols:  # no seq: the server sends the latest price again
                    known = self._quotes.get(symbol)
                    self._quotes[symbol] = _Quote(max_rate, is_confirmed=known is not None and known.is_confirmed)
            case CommunitySubscription(community_id):
                self._communities[community_id] = None
            case ActivitySubscription():
                self._has_activity = True
            case _:
                assert_never(target)

    def remove(self, target: Subscription) -> None:
        """Drop a subscription that the application or the server has ended."""
        match target:
            case RoomSubscription(room_id):
                self._rooms.pop(room_id, None)
            case InboxSubscription():
                self._inbox = None
            case MarketSubscription(symbols):
                for symbol in symbols:
                    self._quotes.pop(symbol, None)
            case CommunitySubscription(community_id):
                self._communities.pop(community_id, None)
            case ActivitySubscription():
                self._has_activity = False
            case _:
                assert_never(target)

    def unsubscribing(self, target: Subscription) -> None:
        """Drop messages of a removed room, and their changes, until `unsubscribed` or `disconnected`."""
        if isinstance(target, RoomSubscription):
            self._unsubscribing.add(target.chatroom_id)

    def unsubscribed(self, target: Subscription) -> None:
        """Accept messages of a room again: the server has ended its subscription."""
        if isinstance(target, RoomSubscription):
            self._unsubscribing.discard(target.chatroom_id)

    def disconnected(self) -> None:
        """Forget pending unsubscriptions, which ended with the connection."""
        self._unsubscribing.clear()

    def rejected(self, target: Subscription) -> None:
        """Drop a subscription that the server rejected. Symbols that it had confirmed before stay."""
        if isinstance(target, MarketSubscription):
            confirmed = {symbol for symbol, quote in self._quotes.items() if quote.is_confirmed}
            target = MarketSubscription([symbol for symbol in target.symbols if symbol not in confirmed])
        self.remove(target)

    def remaining(self, target: Subscription) -> Subscription | None:
        """Return the part of `target` that is still subscribed, or None."""
        match target:
            case RoomSubscription(room_id):
                return target if room_id in self._rooms else None
            case InboxSubscription():
                return target if self._inbox is not None else None
            case MarketSubscription(symbols, max_rate):
                remaining = [symbol for symbol in symbols if symbol in self._quotes]
                return MarketSubscription(remaining, max_rate) if remaining else None
            case CommunitySubscription(community_id):
                return target if community_id in self._communities else None
            case ActivitySubscription():
                return target if self._has_activity else None
            case _:
                assert_never(target)

    def resume_fields(self, target: Subscription) -> dict[str, int]:
        """Return the fields of the subscribe frame that resume `target`; none if it has no position yet."""
        cursor = self._cursor_of(target)
        return {} if cursor is None else cursor.fields()

    def targets_except(self, requested: Iterable[Subscription]) -> Sequence[Subscription]:
        """Return the subscriptions to restore on a new connection, except those that a pending request covers."""
        keys = {_key(target) for target in requested}
        targets: list[Subscription] = [CommunitySubscription(community_id) for community_id in self._communities]
        targets += [ActivitySubscription()] if self._has_activity else []
        targets += [INBOX] if self._inbox is not None else []
        targets += [RoomSubscription(room_id) for room_id in self._rooms]
        requested_symbols = {
            symbol for target in requested if isinstance(target, MarketSubscription) for symbol in target.symbols
        }
        by_rate: dict[float, list[str]] = {}
        for symbol, quote in self._quotes.items():
            if symbol not in requested_symbols:
                by_rate.setdefault(quote.max_rate, []).append(symbol)
        targets += [MarketSubscription(symbols, max_rate) for max_rate, symbols in by_rate.items()]
        return [target for target in targets if _key(target) not in keys]

    def subscribed(self, target: Subscription, sent: dict[str, int], data: Any) -> Missed | None:
        """Process the server's confirmation of a subscribe frame for `target`.

        `sent` holds the resume fields of that frame. Return the gap if the server cannot replay it.
        """
        answer = msgspec.convert(data, _SubscribedAnswer)
        if isinstance(target, MarketSubscription):
            self.remove(MarketSubscription(list(answer.unknown)))
            for symbol in target.symbols:
                if (quote := self._quotes.get(symbol)) is not None:
                    quote.is_confirmed = True
        cursor = self._cursor_of(target)
        if cursor is None:
            return None
        before = cursor.position
        if not sent:
            cursor.position = answer.seq if before is None else before
            cursor.note_rev(answer.rev)
            return None
        if answer.recovered:  # replayed frames advance the cursor one by one
            if "since" in sent:
                cursor.note_head(answer.seq, answer.rev)
            return None
        cursor.position, cursor.rev, cursor.head = answer.seq, answer.rev, None
        return missed_of(target, answer.seq if before is None else before, answer.seq)

    def accept(self, type_: str, data: Any) -> Fresh | None:
        """Return the gap before a new frame (as `Fresh`), or None for a repeat."""
        try:
            placement = msgspec.convert(data, _Placement)
        except msgspec.ValidationError:  # a custom event that uses these names for other types
            return Fresh()
        if type_ == "market:price":
            return self._accept_price(placement)
        if type_ in _CHANGES and placement.rev is not None:
            return self._accept_change(placement.chatroom_id, placement.rev)
        if placement.seq is None:
            return Fresh()
        if type_ == "chat:message":
            return self._accept_message(placement)
        system, colon, _ = type_.partition(":")
        if self._inbox is None or not colon or system in _SYSTEM:
            return Fresh()
        return self._inbox.advance(placement.seq, INBOX)

    def acked(self, ack: Ack) -> bool:
        """Track the room of an acknowledged direct message. Return whether the room was unknown.

        An unknown room starts just before the message, so that a resume fetches it if it does not arrive live.
        """
        is_new = ack.chatroom_id not in self._rooms
        cursor = self._track(ack.chatroom_id, ack.seq)
        if is_new and ack.rev is not None:
            cursor.rev = ack.rev - 1
        return is_new

    def _accept_message(self, placement: _Placement) -> Fresh | None:
        room_id, seq = placement.chatroom_id, placement.seq
        if self._has_left(room_id) or seq is None:
            return None
        cursor = self._track(room_id, seq)
        fresh = cursor.advance(seq, RoomSubscription(room_id))
        if fresh is not None:
            cursor.note_rev(placement.rev)
        return fresh

    def _accept_change(self, room_id: str, rev: int) -> Fresh | None:
        if self._has_left(room_id):
            return None
        cursor = self._rooms.get(room_id)
        if cursor is not None:
            if cursor.rev is not None and rev <= cursor.rev:
                return None
            cursor.note_rev(rev)
        return Fresh()

    def _has_left(self, room_id: str) -> bool:
        return room_id in self._unsubscribing and room_id not in self._rooms

    def _accept_price(self, placement: _Placement) -> Fresh | None:
        quote = self._quotes.get(placement.symbol)
        if quote is None or placement.seq is None:
            return Fresh()
        # market_feed gives a stale mark a new `seq`. A repeated mark passes too; a repeated price does not.
        if quote.seq is not None and (
            placement.seq < quote.seq or (placement.seq == quote.seq and placement.stale is None)
        ):
            return None
        quote.seq = placement.seq
        return Fresh()

    def _cursor_of(self, target: Subscription) -> Cursor | None:
        match target:
            case RoomSubscription(room_id):
                return self._rooms.get(room_id)
            case InboxSubscription():
                return self._inbox
            case _:
                return None

    def _track(self, room_id: str, seq: int) -> Cursor:
        known = self._rooms.get(room_id)
        cursor = known or Cursor(seq - 1, is_subscribed=False)
        if not cursor.is_subscribed:  # keep the rooms in order of activity
            self._rooms.pop(room_id, None)
            self._rooms[room_id] = cursor
        if known is None:
            direct = [room for room, other in self._rooms.items() if not other.is_subscribed]
            for room in direct[:-DIRECT_ROOMS_MAX]:
                del self._rooms[room]
        return cursor


def _key(target: Subscription) -> tuple[str, ...]:
    """Return a key that is equal for subscriptions of the same channel."""
    match target:
        case RoomSubscription(room_id):
            return ("chatroom", room_id)
        case InboxSubscription():
            return ("notifications",)
        case MarketSubscription(symbols):
            return ("market", *symbols)
        case CommunitySubscription(community_id):
            return ("community", community_id)
        case ActivitySubscription():
            return ("activity",)
        case _:
            assert_never(target)
