"""Delivery lines: what a gateway relays without parsing, five fields separated by tabs; and channel names. Pure."""

from enum import StrEnum
from typing import NamedTuple

from shared.errors import Malformed


class DeliveryClass(StrEnum):
    """What may happen to a delivery under overload.

    LOSSLESS is never silently lost; of LATEST only the newest of each key matters; TRANSIENT is shed first;
    CONTROL is for the gateway itself and is never shown to a client as it stands.
    """

    LOSSLESS = "l"
    LATEST = "n"
    TRANSIENT = "t"
    CONTROL = "c"


class ControlKind(StrEnum):
    """`key` of a CONTROL delivery: what the gateways are to do."""

    EVICT = "evict"  # on a room: unsubscribe `{"userId"}`
    RECHECK = "recheck"  # on a room: ask again whether each subscriber still may listen
    ROOM_DELETED = "deleted"  # on a room: tell its subscribers and unsubscribe them
    CONNECTION_COUNT = "sockets"  # on a user: how many connections of that user another gateway holds
    REVOCATION = "standing"  # on CONTROL_CHANNEL: a `Revocation` changed


_CLASSES: dict[bytes, DeliveryClass] = {member.value.encode(): member for member in DeliveryClass}


class Delivery(NamedTuple):
    """One item for the subscribers of a channel.

    `seq` counts a lossless channel's items from 1 without gaps; 0 means that the channel has no order to keep.
    `key` is what LATEST conflates by; for unordered LOSSLESS items an id that makes repeats visible; for a message of a
    direct room, on its users' channels, the room's id.
    `frame` is the finished client frame (JSON, so without raw tabs or line breaks).
    """

    channel: str
    kind: DeliveryClass
    seq: int
    key: str
    frame: bytes

    def to_line(self) -> bytes:
        """`channel \\t class \\t seq \\t key \\t frame`."""
        return f"{self.channel}\t{self.kind.value}\t{self.seq}\t{self.key}\t".encode() + self.frame

    @classmethod
    def from_line(cls, line: bytes) -> "Delivery":
        """Raises Malformed."""
        try:
            channel, kind, seq, key, frame = line.split(b"\t", 4)
            return cls(channel.decode(), _CLASSES[kind], int(seq), key.decode(), frame)
        except (ValueError, KeyError) as error:
            raise Malformed(f"not a delivery line: {error}") from error


def room_channel(room_id: str) -> str:
    """What happens in a room; seq is the room's."""
    return f"room:{room_id}"


def user_channel(user_id: str) -> str:
    """What reaches every socket of a user without subscribing: direct messages, read marks, control."""
    return f"user:{user_id}"


def inbox_channel(user_id: str) -> str:
    """A user's notifications; seq is the inbox's."""
    return f"inbox:{user_id}"


def market_channel(symbol: str) -> str:
    """A symbol's prices; class LATEST."""
    return f"market:{symbol}"


def community_channel(community_id: str) -> str:
    """A community's events."""
    return f"community:{community_id}"


ALL_CHANNEL = "all"  # every socket that is subscribed to notifications
CONTROL_CHANNEL = "control"  # what every gateway must hear; class CONTROL
