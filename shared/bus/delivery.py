"""Delivery lines, which a gateway relays without parsing their frames, and channel names. Pure.

A line holds five fields, separated by tabs: channel, kind, position, key, client frame.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from shared.errors import Malformed


class DeliveryKind(StrEnum):
    """The kind of a delivery, which decides how a gateway handles it.

    ORDERED items are delivered in the order of their positions, without a gap. DIRECT items are those of a direct room,
    on the channels of its two users. HEAD and DIRECT_HEAD name the newest `rev` of a room's log. A lost ORDERED
    or DIRECT item shows as a gap, which the gateway fills. UNORDERED items (events for a community, a room or everyone;
    `member:invited`; `member:joined` of users who joined by a message or reaction) are delivered once, in any order, to
    the listeners of that time. The loss of an event is not detected. `member:invited` is sent twice; `member:joined`
    comes again with its entry, when the gateway fills the gap. A gateway never silently drops an ORDERED, DIRECT, HEAD,
    DIRECT_HEAD or UNORDERED item. LATEST items are conflated: only the newest one of each key matters. TRANSIENT items
    are shed first. A CONTROL item is for the gateway itself, which never forwards it to a client. REPLY and ANSWERED
    items answer commands; their channel is the gateway process that sent the commands. A TRACE item follows a traced
    delivery on its channel; its `key` is the W3C traceparent that the delivery continues.
    """

    ORDERED = "o"
    DIRECT = "d"
    UNORDERED = "u"
    LATEST = "n"
    TRANSIENT = "t"
    CONTROL = "c"
    HEAD = "h"
    DIRECT_HEAD = "g"
    REPLY = "r"
    ANSWERED = "a"
    TRACE = "x"


ANSWERS = frozenset({DeliveryKind.REPLY, DeliveryKind.ANSWERED})


class ControlKind(StrEnum):
    """The `key` of a CONTROL delivery: the act that gateways perform."""

    EVICT = "evict"  # on a room: unsubscribe the user of an `Eviction`; on a user: notify their other sockets
    RECHECK = "recheck"  # on a room: check each subscriber's access again
    ROOM_DELETED = "deleted"  # on a room: notify its subscribers and unsubscribe them
    CONNECTION_COUNT = "sockets"  # on a user: the number of the user's connections at another gateway
    MEMBERSHIP = "membership"  # on a user: a `MembershipChange` of theirs
    REVOCATION = "standing"  # on CONTROL_CHANNEL: a `Revocation` changed


class EndReason(StrEnum):
    """The reason why the server ended a subscription, in the frame `unsubscribed`."""

    REMOVED = "removed"
    DELETED = "deleted"


class Eviction(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The frame of an EVICT delivery. Without a reason, the user has left, and the client is not notified.

    On a room's channel it has a position in the order of the log's entries. A copy on the user's channel precedes it.
    The copy carries the room id and is for sockets not subscribed to the room; if `opened_before_ms` is set, only for
    those opened before it.
    """

    user_id: str
    chatroom_id: str = ""
    opened_before_ms: int = 0
    reason: EndReason | None = None


class MembershipChange(msgspec.Struct, frozen=True, rename="camel"):
    """The frame of a MEMBERSHIP delivery."""

    chatroom_id: str
    is_joined: bool


class ChannelKind(StrEnum):
    """The part of a channel name before the colon."""

    ROOM = "room"
    USER = "user"
    INBOX = "inbox"
    MARKET = "market"
    COMMUNITY = "community"
    ALL = "all"
    CONTROL = "control"
    ACTIVITY = "activity"  # local to a gateway: nothing is published to it


class ChannelName(NamedTuple):
    """A channel name in parts. `key` is the id or symbol after the colon; ALL and CONTROL have none."""

    kind: ChannelKind
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.key}" if self.kind not in _KEYLESS else self.kind.value

    @classmethod
    def parse(cls, text: str) -> "ChannelName":
        """Return the parts of a name. Raises Malformed for an unknown kind."""
        kind, _, key = text.partition(":")
        try:
            return cls(_CHANNEL_KINDS[kind], key)
        except KeyError:
            raise Malformed("not a channel name") from None


_CHANNEL_KINDS: dict[str, ChannelKind] = {member.value: member for member in ChannelKind}
_KEYLESS = frozenset({ChannelKind.ALL, ChannelKind.CONTROL, ChannelKind.ACTIVITY})
_DELIVERY_KINDS: dict[bytes, DeliveryKind] = {member.value.encode(): member for member in DeliveryKind}


class Delivery(NamedTuple):
    """One item for the subscribers of a channel.

    `position` is its place on the channel: the log's `rev` in a room (ORDERED, HEAD, controls), the entry's `seq` in an
    inbox, the price's `seq` on a market channel. For DIRECT and DIRECT_HEAD, it is the `rev` in the log of the room
    `key`, not a place on the user's channel. A REPLY holds the owner's `term` in its place. A repeated UNORDERED item
    holds a time in ms: only sockets opened before that time receive the item; otherwise `position` is 0.

    `key` identifies the value that a LATEST item replaces. It is an id for deduplication in an UNORDERED item, the
    room's id in a DIRECT item or head, and in a TRANSIENT item the user or session that must not receive it. In a
    CONTROL item it is a `ControlKind`, in a TRACE item a traceparent. Elsewhere, and where an item needs none, it is
    empty.

    `frame` is the complete client frame (JSON, so without raw tabs or line breaks), empty for an item that clients do
    not see and for a HEAD. A DIRECT_HEAD has the time of the entry in ms instead, a CONTROL item its JSON data, a REPLY
    the reply, an ANSWERED item a `BodyAnswered`.
    """

    channel: str
    kind: DeliveryKind
    position: int
    key: str
    frame: bytes

    @classmethod
    def reply(cls, gateway: str, term: int, frame: bytes) -> "Delivery":
        """Return the answer to a command of `gateway`, decided under `term`."""
        return cls(gateway, DeliveryKind.REPLY, term, "", frame)

    def trace(self, traceparent: str) -> "Delivery":
        """Return the TRACE item of this delivery."""
        return Delivery(self.channel, DeliveryKind.TRACE, self.position, traceparent, b"")

    @property
    def term(self) -> int:
        """Return the term under which the owner decided; only in a REPLY."""
        return self.position

    def to_line(self) -> bytes:
        """Return the five fields, separated by tabs."""
        return f"{self.channel}\t{self.kind.value}\t{self.position}\t{self.key}\t".encode() + self.frame

    @classmethod
    def from_line(cls, line: bytes) -> "Delivery":
        """Parse a line. Raises Malformed."""
        try:
            channel, kind, position, key, frame = line.split(b"\t", 4)
            return cls(channel.decode(), _DELIVERY_KINDS[kind], int(position), key.decode(), frame)
        except (ValueError, KeyError) as error:
            raise Malformed("not a delivery line") from error


def room_channel(room_id: str) -> str:
    """Return the channel of a room's log entries; positions on it are revs, not the `seq` of messages."""
    return f"room:{room_id}"


def user_channel(user_id: str) -> str:
    """Return the channel that every socket of a user joins by itself: direct messages, read marks, control."""
    return f"user:{user_id}"


def inbox_channel(user_id: str) -> str:
    """Return the channel of a user's notifications; positions on it are the seqs of the inbox."""
    return f"inbox:{user_id}"


def market_channel(symbol: str) -> str:
    """Return the channel of a symbol's prices, of kind LATEST."""
    return f"market:{symbol}"


def community_channel(community_id: str) -> str:
    """Return the channel of a community's events."""
    return f"community:{community_id}"


ACTIVITY_CHANNEL = "activity"  # a name among the subscriptions of a socket
ALL_CHANNEL = "all"  # every socket that has subscribed to notifications
CONTROL_CHANNEL = "control"  # every gateway; kind CONTROL
