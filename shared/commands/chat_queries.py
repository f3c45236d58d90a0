"""Service requests for chat_service, and their replies. Pure."""

import msgspec

from shared.commands.activity import CheckUnread, ListUnread
from shared.commands.chat_views import MemberView, MessageView, PinView, ReactionView, RoomView
from shared.commands.command import MESSAGE_ESTIMATE_BYTES, RECORD_BYTES, ServiceRequest, replay_max_bytes
from shared.protocol.wire_struct import WireStruct

# Queries, on `chat.queries` -------------------------------------------------------------------------------------------


class MessageListRequest(ServiceRequest, frozen=True, kw_only=True):
    """A request for up to `limit` messages."""

    limit: int

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return self.limit * MESSAGE_ESTIMATE_BYTES


class RecordListRequest(ServiceRequest, frozen=True, kw_only=True):
    """A request for up to `limit` short records, such as rooms or members."""

    limit: int

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return self.limit * RECORD_BYTES


class ListRooms(RecordListRequest, frozen=True, kw_only=True, tag="rooms"):
    """List the rooms that the caller sees. Reply: `RoomPage`."""

    page: int
    type: str | None = None
    q: str | None = None


class GetRoom(ServiceRequest, frozen=True, kw_only=True, tag="room"):
    """Get one room. Reply: `RoomView`."""

    room_id: str


class ListMessages(MessageListRequest, frozen=True, kw_only=True, tag="messages"):
    """List messages, newest first. Reply: `MessagePage`."""

    room_id: str
    page: int
    before: int | None = None
    after: int | None = None


class SearchRoom(MessageListRequest, frozen=True, kw_only=True, tag="search.room"):
    """Find messages of a room that contain every word of `q`, newest first. Reply: `FoundMessages`.

    `user_id` is the author; `before` is the id of the message before which the search continues.
    """

    room_id: str
    q: str
    user_id: str | None = None
    before: str | None = None


class SearchJoinedRooms(MessageListRequest, frozen=True, kw_only=True, tag="search"):
    """Like `SearchRoom`, in all rooms of which the caller is a member."""

    q: str
    before: str | None = None


class GetMessage(ServiceRequest, frozen=True, kw_only=True, tag="message"):
    """Get one message. Reply: `MessageView`."""

    room_id: str
    message_id: str


class ListMessagesAround(MessageListRequest, frozen=True, kw_only=True, tag="messages.around"):
    """List `limit` messages with the one of this seq in the middle, newest first. Reply: `MessagePage`."""

    room_id: str
    seq: int


class ListReplies(MessageListRequest, frozen=True, kw_only=True, tag="replies"):
    """List the replies to a message, oldest first. Reply: `MessagePage`."""

    room_id: str
    message_id: str
    page: int


class ListReactions(RecordListRequest, frozen=True, kw_only=True, tag="reactions"):
    """List the reactions to a message, with one emoji or any, newest first. Reply: `ReactionPage`."""

    room_id: str
    message_id: str
    page: int
    emoji: str | None = None


class ListPins(MessageListRequest, frozen=True, kw_only=True, tag="pins"):
    """List the pinned messages of a room, newest pin first: all, or that of one message. Reply: `PinPage`.

    `is_granted`: the partition has granted the caller access already, for example to an admin who is not a member.
    """

    room_id: str
    page: int
    message_id: str | None = None
    is_granted: bool = False


class ListMembers(RecordListRequest, frozen=True, kw_only=True, tag="members"):
    """List the members of a room. Reply: `MemberPage`."""

    room_id: str
    page: int


class ReplayMessages(ServiceRequest, frozen=True, kw_only=True, tag="replay"):
    """Get the messages with `after` < seq ≤ `through`, oldest first, as finished frames. Reply: `ReplayedFrames`.

    Sent by a gateway on behalf of a client that may read the room. The reply holds the oldest of them, up to 1,000
    messages and 8 MB.
    """

    room_id: str
    after: int
    through: int

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return replay_max_bytes(self.after, self.through, MESSAGE_ESTIMATE_BYTES)


class ReplayEntries(ServiceRequest, frozen=True, kw_only=True, tag="entries"):
    """Get the entries of a room's log with `after` < rev ≤ `through`, oldest first. Reply: `ReplayedEntries`.

    Sent by a gateway that has seen a gap, or for a client that resumes by `sinceRev`. Every rev seen by a gateway is
    committed, so the entries exist. They show the current state (`as_current` in `chat_service.rooms.change_frames`).
    The reply is shorter than requested beyond 1,000 entries or 8 MB, and while a majority does not have them yet.
    """

    room_id: str
    after: int
    through: int

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return replay_max_bytes(self.after, self.through, MESSAGE_ESTIMATE_BYTES)


class GetPresence(ServiceRequest, frozen=True, kw_only=True, tag="presence"):
    """Get the presence of users, in the given order; a user never seen is offline. Reply: `PresenceState`."""

    user_ids: tuple[str, ...]


class ListRecentDirectMessages(ServiceRequest, frozen=True, kw_only=True, tag="directs"):
    """Get the positions of the log entries since `since_ms` in the direct rooms of these users.

    Changes of messages are included. Reply: `RecentDirectMessages`. Sent by a gateway that may have lost lines. Only
    the last 1,000 entries of each room are considered.
    """

    user_ids: tuple[str, ...]
    since_ms: int

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return len(self.user_ids) * RECORD_BYTES


AnyChatRequest = (
    ListRooms
    | GetRoom
    | ListMessages
    | ListMessagesAround
    | SearchRoom
    | SearchJoinedRooms
    | GetMessage
    | ListReplies
    | ListReactions
    | ListPins
    | ListMembers
    | ReplayMessages
    | ReplayEntries
    | ListRecentDirectMessages
    | GetPresence
    | ListUnread
    | CheckUnread
)


class EntryDeliveries(WireStruct, frozen=True, kw_only=True, array_like=True):
    """The deliveries of an entry: its client frame, empty if it has none, and its control deliveries.

    `controls` are pairs of kind and JSON data.

    `joined`: the `member:joined` frames of users whom a message or a reaction made members. They precede `frame`.
    """

    rev: int
    frame: str
    controls: tuple[tuple[str, str], ...] = ()
    joined: tuple[str, ...] = ()

    @property
    def frames(self) -> list[bytes]:
        """Return the frames of the entry that clients receive, in order."""
        return [frame.encode() for frame in (*self.joined, self.frame) if frame]


class ReplayedEntries(WireStruct, frozen=True, kw_only=True):
    """Consecutive entries. `is_deleted`: the room and its entries are deleted."""

    entries: tuple[EntryDeliveries, ...]
    is_deleted: bool = False


class RoomPage(WireStruct, frozen=True, kw_only=True):
    """A page of rooms; `total` counts all pages."""

    items: tuple[RoomView, ...]
    total: int


class FoundMessages(WireStruct, frozen=True, kw_only=True):
    """Messages that a search found. `next_before` is set if older messages remain unsearched."""

    items: tuple[MessageView, ...]
    next_before: str | None = None


class MessagePage(WireStruct, frozen=True, kw_only=True):
    """A page of messages; `total` counts all pages."""

    items: tuple[MessageView, ...]
    total: int


class ReactionPage(WireStruct, frozen=True, kw_only=True):
    """A page of reactions; `total` counts all pages."""

    items: tuple[ReactionView, ...]
    total: int


class PinPage(WireStruct, frozen=True, kw_only=True):
    """A page of pins; `total` counts all pages."""

    items: tuple[PinView, ...]
    total: int


class MemberPage(WireStruct, frozen=True, kw_only=True):
    """A page of members; `total` counts all pages."""

    items: tuple[MemberView, ...]
    total: int


class DirectMessagePosition(WireStruct, frozen=True, kw_only=True, array_like=True):
    """The position of an entry in the log of its room, and the time when it was stored."""

    rev: int
    created_at_ms: int


class DirectRoom(WireStruct, frozen=True, kw_only=True):
    """A direct room and the positions of its recent entries, in order, at least one."""

    room_id: str
    user_ids: tuple[str, str]
    positions: tuple[DirectMessagePosition, ...] = msgspec.field(name="posts")


class RecentDirectMessages(WireStruct, frozen=True, kw_only=True):
    """Recent entries by room. `is_whole` is False if there were more than one reply can hold."""

    rooms: tuple[DirectRoom, ...]
    is_whole: bool = True


# Presence reports, on `chat.presences` -------------------------------------------------------------------------------


PRESENCE_BATCH_MAX = 500


class ReportPresence(ServiceRequest, frozen=True, kw_only=True, tag="presence.report"):
    """Renew a gateway's lease, or report a batch of users that came online or went offline there.

    A batch has at most 500 users; an empty one renews the lease. With `begins_lease`, `node_id` names a new lease,
    which has no users yet: a gateway whose lease was lost begins another, under another name, and reports its users
    again, batch by batch. On the wire `begins_lease` is still called `isFull`; gateways of unreleased builds after 0.2
    send it with a list of all their users. With `is_leaving` the gateway is stopping, and its users have a grace period
    to reconnect elsewhere.
    Reply: `PresenceReported`.
    """

    node_id: str
    came: tuple[str, ...] = ()
    went: tuple[str, ...] = ()
    begins_lease: bool = msgspec.field(default=False, name="isFull")
    is_leaving: bool = False


class PresenceReported(WireStruct, frozen=True, kw_only=True):
    """The reply. `lease_is_known` is False if the lease had expired: its users go offline; begin another."""

    lease_is_known: bool
