"""Service requests for unread counts, and their replies, for REST and for the channel `activity`. Pure."""

from shared.commands.command import ServiceRequest
from shared.protocol.activity_frames import RoomUnreadData
from shared.protocol.wire_struct import WireStruct

PAIRS_MAX = 500
_ROOM_BYTES = 128
_ROOMS_ESTIMATE = 1_000


class ListUnread(ServiceRequest, frozen=True, kw_only=True, tag="unread"):
    """Get the unread counts of all rooms of the caller. Reply: `RoomsUnread`."""

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return _ROOMS_ESTIMATE * _ROOM_BYTES


class CheckUnread(ServiceRequest, frozen=True, kw_only=True, tag="unread.check"):
    """Get the unread counts of users in rooms, given as at most 500 pairs of (user id, room id).

    Reply: `RoomsUnread`, without the pairs whose user is not a member of the room.
    """

    pairs: tuple[tuple[str, str], ...]


class RoomUnread(WireStruct, frozen=True, kw_only=True, array_like=True):
    """A member's counts in a room after entry `rev`, whose last message is `seq`."""

    room_id: str
    user_id: str
    rev: int
    seq: int
    read_seq: int
    mention_count: int
    last_message_at_ms: int | None
    is_direct: bool

    @property
    def unread_count(self) -> int:
        """Return the number of messages after the read mark."""
        return max(self.seq - self.read_seq, 0)


class RoomsUnread(WireStruct, frozen=True, kw_only=True):
    """Unread counts, in any order."""

    counts: tuple[RoomUnread, ...]


class UnreadTotals(WireStruct, frozen=True, kw_only=True):
    """The rooms with unread messages, and the totals over them."""

    unread_total: int
    mention_total: int
    rooms: tuple[RoomUnreadData, ...]


def totals_of(found: RoomsUnread) -> UnreadTotals:
    """Return the counts of one user as REST shows them, the room with the newest message first."""
    unread = sorted(
        (count for count in found.counts if count.unread_count),
        key=lambda count: (count.last_message_at_ms or 0, count.room_id),
        reverse=True,
    )
    return UnreadTotals(
        unread_total=sum(count.unread_count for count in unread),
        mention_total=sum(count.mention_count for count in unread),
        rooms=tuple(map(_shown, unread)),
    )


def _shown(count: RoomUnread) -> RoomUnreadData:
    return RoomUnreadData(chatroom_id=count.room_id, unread_count=count.unread_count, mention_count=count.mention_count)
