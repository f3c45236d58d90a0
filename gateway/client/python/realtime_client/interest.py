"""Subscriptions of the application, the position in each ordered channel, and the deduplication of frames. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, assert_never

import msgspec

from realtime_client.protocol import (
    Ack,
    CommunitySubscription,
    InboxSubscription,
    MarketSubscription,
    RoomSubscription,
    Subscription,
)

DIRECT_ROOMS_MAX = 50

# Frames whose `seq` does not number the inbox. Every other event with a `seq` comes from the inbox.
_OUTSIDE_INBOX = frozenset({"chat:ack", "chat:read", "chat:typing", "subscribed", "unsubscribed"})

INBOX = InboxSubscription()


class Missed(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Gap that the server cannot replay: the items after `since` up to `seq`. The application loads them over REST."""

    channel: str
    since: int
    seq: int
    chatroom_id: str | None = None


class Fresh(msgspec.Struct, frozen=True):
    """A frame that the application has not seen, and the gap before it, if any."""

    missed: Missed | None = None


class _Placement(msgspec.Struct, frozen=True, rename="camel"):
    """Fields that place an event in its channel."""

    seq: int | None = None
    chatroom_id: str = ""
    symbol: str = ""
    stale: bool | None = None


class _SubscribedAnswer(msgspec.Struct, frozen=True):
    """Fields of a `subscribed` answer that determine the position."""

    seq: int = 0
    recovered: bool = False
    unknown: tuple[str, ...] = ()


class _Cursor:
    """Position in an ordered channel; items up to `position` are repeats.

    `is_subscribed` is False for a room whose messages arrive without a subscription (direct messages). Such rooms are
    resumed as well, the 50 most recently active ones.
    """

    __slots__ = ("is_subscribed", "position")

    def __init__(self, position: int | None, *, is_subscribed: bool) -> None:
        self.position = position
        self.is_subscribed = is_subscribed

    def advance(self, seq: int, target: Subscription) -> Fresh | None:
        """Move to `seq` and report the gap before it, or return None if `seq` is a repeat."""
        before = self.position
        if before is not None and seq <= before:
            return None
        self.position = seq
        if before is None or seq == before + 1:
            return Fresh()
        return Fresh(missed_of(target, before, seq - 1))


class _Quote(msgspec.Struct):
    """A subscribed symbol. `is_confirmed` states whether the server has confirmed the subscription."""

    max_rate: float
    seq: int | None = None
    is_confirmed: bool = False


class Interest:
    """Subscriptions of one client and its position in each; a subscription outlives connections."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Cursor] = {}
        self._inbox: _Cursor | None = None
        self._quotes: dict[str, _Quote] = {}
        self._communities: dict[str, None] = {}  # in order
        self._unsubscribing: set[str] = set()  # rooms until the server confirms; their messages are dropped

    def add(self, target: Subscription) -> None:
        """Store a subscription of the application. A known position takes precedence over `since`."""
        match target:
            case RoomSubscription(room_id, since):
                cursor = self._rooms.setdefault(room_id, _Cursor(since, is_subscribed=True))
                cursor.is_subscribed = True
                if cursor.position is None:
                    cursor.position = since
            case InboxSubscription(_, since):
                self._inbox = self._inbox or _Cursor(since, is_subscribed=True)
            case MarketSubscription(symbols, max_rate):
                for symbol in symbols:  # no seq: the server sends the latest price again
                    known = self._quotes.get(symbol)
                    self._quotes[symbol] = _Quote(max_rate, is_confirmed=known is not None and known.is_confirmed)
            case CommunitySubscription(community_id):
                self._communities[community_id] = None
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
            case _:
                assert_never(target)

    def unsubscribing(self, target: Subscription) -> None:
        """Drop messages of a removed room until `unsubscribed` or `disconnected`."""
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
            case _:
                assert_never(target)

    def since(self, target: Subscription) -> int | None:
        """Return the position from which to resume `target`, or None if it has none yet."""
        cursor = self._cursor_of(target)
        return None if cursor is None else cursor.position

    def targets_except(self, requested: Iterable[Subscription]) -> Sequence[Subscription]:
        """Return the subscriptions to restore on a new connection, except those that a pending request covers."""
        keys = {_key(target) for target in requested}
        targets: list[Subscription] = [CommunitySubscription(community_id) for community_id in self._communities]
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

    def subscribed(self, target: Subscription, since: int | None, data: Any) -> Missed | None:
        """Process the server's confirmation of a subscribe frame for `target` with `since`.

        Return the gap after `since` if the server cannot replay it.
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
        if since is None:
            cursor.position = answer.seq if cursor.position is None else cursor.position
            return None
        if answer.recovered:
            return None  # the replayed messages advance the cursor one by one
        cursor.position = answer.seq
        return missed_of(target, since, answer.seq)

    def accept(self, type_: str, data: Any) -> Fresh | None:
        """Return whether a frame is new, and the gap before it; None if the application has already seen it."""
        try:
            placement = msgspec.convert(data, _Placement)
        except msgspec.ValidationError:  # a custom event that uses these names for other types
            return Fresh()
        if type_ == "market:price":
            return self._accept_price(placement)
        if placement.seq is None:
            return Fresh()
        if type_ == "chat:message":
            return self._accept_message(placement.chatroom_id, placement.seq)
        if self._inbox is None or type_ in _OUTSIDE_INBOX:
            return Fresh()
        return self._inbox.advance(placement.seq, INBOX)

    def acked(self, ack: Ack) -> bool:
        """Track the room of an acknowledged direct message, from just before it: the message itself may not arrive.

        Return whether the room was unknown.
        """
        is_new = ack.chatroom_id not in self._rooms
        self._track(ack.chatroom_id, ack.seq)
        return is_new

    def _accept_message(self, room_id: str, seq: int) -> Fresh | None:
        if room_id in self._unsubscribing and room_id not in self._rooms:
            return None
        return self._track(room_id, seq).advance(seq, RoomSubscription(room_id))

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

    def _cursor_of(self, target: Subscription) -> _Cursor | None:
        match target:
            case RoomSubscription(room_id):
                return self._rooms.get(room_id)
            case InboxSubscription():
                return self._inbox
            case _:
                return None

    def _track(self, room_id: str, seq: int) -> _Cursor:
        known = self._rooms.get(room_id)
        cursor = known or _Cursor(seq - 1, is_subscribed=False)
        if not cursor.is_subscribed:  # keep the rooms in order of activity
            self._rooms.pop(room_id, None)
            self._rooms[room_id] = cursor
        if known is None:
            direct = [room for room, other in self._rooms.items() if not other.is_subscribed]
            for room in direct[:-DIRECT_ROOMS_MAX]:
                del self._rooms[room]
        return cursor


def missed_of(target: Subscription, since: int, seq: int) -> Missed:
    """Return the gap of a room or of the inbox."""
    room_id = target.chatroom_id if isinstance(target, RoomSubscription) else None
    return Missed(target.channel, since, seq, room_id)


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
        case _:
            assert_never(target)
