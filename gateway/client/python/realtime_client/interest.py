"""What the application listens to, how far it has come in each channel, and so what it has had already. Pure."""

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

# Frames whose `seq` is not that of the inbox; any other event with a `seq` is from there.
_NOT_OF_THE_INBOX = frozenset({"chat:ack", "chat:read", "chat:typing", "subscribed", "unsubscribed"})

INBOX = InboxSubscription()


class Missed(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Between `since` and `seq` something came that cannot be replayed: it is to be read over REST."""

    channel: str
    since: int
    seq: int
    chatroom_id: str | None = None


class Fresh(msgspec.Struct, frozen=True):
    """A frame that the application has not had, and what is missing before it."""

    missed: Missed | None = None


class _Marks(msgspec.Struct, frozen=True, rename="camel"):
    """What places an event in its channel."""

    seq: int | None = None
    chatroom_id: str = ""
    symbol: str = ""
    stale: bool | None = None


class _Answer(msgspec.Struct, frozen=True):
    """Of a `subscribed`, what moves a place."""

    seq: int = 0
    recovered: bool = False
    unknown: tuple[str, ...] = ()


class _Place:
    """A place in an ordered channel: what came up to `position` is not shown again.

    `is_wanted` is False for rooms that come without a subscription (direct messages): they are resumed like the others,
    the 50 heard last.
    """

    __slots__ = ("is_wanted", "position")

    def __init__(self, position: int | None, *, is_wanted: bool) -> None:
        self.position = position
        self.is_wanted = is_wanted

    def advance(self, seq: int, target: Subscription) -> Fresh | None:
        """None if `seq` is a repeat; else move on."""
        before = self.position
        if before is not None and seq <= before:
            return None
        self.position = seq
        if before is None or seq == before + 1:
            return Fresh()
        return Fresh(missed_of(target, before, seq - 1))


class _Quote(msgspec.Struct):
    """A symbol that is wanted. `is_there`: the server has subscribed it."""

    max_rate: float
    seq: int | None = None
    is_there: bool = False


class Interest:
    """All that one client listens to."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Place] = {}
        self._inbox: _Place | None = None
        self._quotes: dict[str, _Quote] = {}
        self._communities: dict[str, None] = {}  # in order
        self._leaving: set[str] = set()  # rooms until the server has unsubscribed them: nothing of them is shown

    def want(self, target: Subscription) -> None:
        """The application subscribes. A place that is known already wins over `since`."""
        match target:
            case RoomSubscription(room_id, since):
                place = self._rooms.setdefault(room_id, _Place(since, is_wanted=True))
                place.is_wanted = True
                if place.position is None:
                    place.position = since
            case InboxSubscription(_, since):
                self._inbox = self._inbox or _Place(since, is_wanted=True)
            case MarketSubscription(symbols, max_rate):
                for symbol in symbols:  # the latest price comes anew
                    known = self._quotes.get(symbol)
                    self._quotes[symbol] = _Quote(max_rate, is_there=known is not None and known.is_there)
            case CommunitySubscription(community_id):
                self._communities[community_id] = None
            case _:
                assert_never(target)

    def forget(self, target: Subscription) -> None:
        """The application unsubscribes, or the server has ended it."""
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

    def leave(self, target: Subscription) -> None:
        """The server is asked to end `target`, which is forgotten here; see `left` and `disconnected`."""
        if isinstance(target, RoomSubscription):
            self._leaving.add(target.chatroom_id)

    def left(self, target: Subscription) -> None:
        """The server has ended it."""
        if isinstance(target, RoomSubscription):
            self._leaving.discard(target.chatroom_id)

    def disconnected(self) -> None:
        """There is nothing left that the server could end."""
        self._leaving.clear()

    def refused(self, target: Subscription) -> None:
        """The server refuses to subscribe `target`; symbols that were there before stay."""
        if isinstance(target, MarketSubscription):
            there = {symbol for symbol, quote in self._quotes.items() if quote.is_there}
            target = MarketSubscription([symbol for symbol in target.symbols if symbol not in there])
        self.forget(target)

    def remaining(self, target: Subscription) -> Subscription | None:
        """What is still wanted of `target`."""
        match target:
            case RoomSubscription(room_id):
                return target if room_id in self._rooms else None
            case InboxSubscription():
                return target if self._inbox is not None else None
            case MarketSubscription(symbols, max_rate):
                wanted = [symbol for symbol in symbols if symbol in self._quotes]
                return MarketSubscription(wanted, max_rate) if wanted else None
            case CommunitySubscription(community_id):
                return target if community_id in self._communities else None
            case _:
                assert_never(target)

    def since(self, target: Subscription) -> int | None:
        """From where `target` is to be resumed; None if nothing came from it yet."""
        place = self._place_of(target)
        return None if place is None else place.position

    def targets_but(self, asked: Iterable[Subscription]) -> Sequence[Subscription]:
        """Everything that a new connection has to be subscribed to, but for what is asked anyway."""
        names = {_name(target) for target in asked}
        targets: list[Subscription] = [CommunitySubscription(community_id) for community_id in self._communities]
        targets += [INBOX] if self._inbox is not None else []
        targets += [RoomSubscription(room_id) for room_id in self._rooms]
        symbols_asked = {
            symbol for target in asked if isinstance(target, MarketSubscription) for symbol in target.symbols
        }
        by_rate: dict[float, list[str]] = {}
        for symbol, quote in self._quotes.items():
            if symbol not in symbols_asked:
                by_rate.setdefault(quote.max_rate, []).append(symbol)
        targets += [MarketSubscription(symbols, max_rate) for max_rate, symbols in by_rate.items()]
        return [target for target in targets if _name(target) not in names]

    def subscribed(self, target: Subscription, since: int | None, data: Any) -> Missed | None:
        """The server has subscribed `target`, asked with `since`. Returns what it cannot replay."""
        answer = msgspec.convert(data, _Answer)
        if isinstance(target, MarketSubscription):
            self.forget(MarketSubscription(list(answer.unknown)))
            for symbol in target.symbols:
                if (quote := self._quotes.get(symbol)) is not None:
                    quote.is_there = True
        place = self._place_of(target)
        if place is None:
            return None
        if since is None:
            place.position = answer.seq if place.position is None else place.position
            return None
        if answer.recovered:
            return None  # the replay moves the place, message by message
        place.position = answer.seq
        return missed_of(target, since, answer.seq)

    def take(self, type_: str, data: Any) -> Fresh | None:
        """None if the application has had this frame already."""
        try:
            marks = msgspec.convert(data, _Marks)
        except msgspec.ValidationError:  # an event with fields of its own
            return Fresh()
        if type_ == "market:price":
            return self._take_price(marks)
        if marks.seq is None:
            return Fresh()
        if type_ == "chat:message":
            return self._take_message(marks.chatroom_id, marks.seq)
        if self._inbox is None or type_ in _NOT_OF_THE_INBOX:
            return Fresh()
        return self._inbox.advance(marks.seq, INBOX)

    def acked(self, ack: Ack) -> bool:
        """A direct message is acked: its room is resumed from before it, should the message itself not come.

        Returns whether nothing had come from there yet.
        """
        is_new = ack.chatroom_id not in self._rooms
        self._room(ack.chatroom_id, ack.seq)
        return is_new

    def _take_message(self, room_id: str, seq: int) -> Fresh | None:
        if room_id in self._leaving and room_id not in self._rooms:
            return None
        return self._room(room_id, seq).advance(seq, RoomSubscription(room_id))

    def _take_price(self, marks: _Marks) -> Fresh | None:
        quote = self._quotes.get(marks.symbol)
        if quote is None or marks.seq is None:
            return Fresh()
        if quote.seq is not None and (marks.seq < quote.seq or (marks.seq == quote.seq and marks.stale is None)):
            return None
        quote.seq = marks.seq
        return Fresh()

    def _place_of(self, target: Subscription) -> _Place | None:
        match target:
            case RoomSubscription(room_id):
                return self._rooms.get(room_id)
            case InboxSubscription():
                return self._inbox
            case _:
                return None

    def _room(self, room_id: str, seq: int) -> _Place:
        known = self._rooms.get(room_id)
        place = known or _Place(seq - 1, is_wanted=False)
        if not place.is_wanted:  # the one heard last is at the end
            self._rooms.pop(room_id, None)
            self._rooms[room_id] = place
        if known is None:
            direct = [name for name, other in self._rooms.items() if not other.is_wanted]
            for name in direct[:-DIRECT_ROOMS_MAX]:
                del self._rooms[name]
        return place


def missed_of(target: Subscription, since: int, seq: int) -> Missed:
    """What is missing of a room or of the inbox."""
    room_id = target.chatroom_id if isinstance(target, RoomSubscription) else None
    return Missed(target.channel, since, seq, room_id)


def _name(target: Subscription) -> tuple[str, ...]:
    """Equal for targets that mean the same channel."""
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
