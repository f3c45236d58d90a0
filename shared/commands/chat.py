"""Commands to the one writer of a room, and service requests, for chat_service. Pure."""

from typing import Annotated

import msgspec

from shared.commands.command import MESSAGE_ESTIMATE_BYTES, RECORD_BYTES, BusRequest, ServiceRequest, replay_max_bytes
from shared.protocol.server_frames import UserProfile
from shared.protocol.validation import OnlineStatus, Time, one_of
from shared.protocol.wire_struct import WireStruct

# Room commands, in bodies to the owner of the room's partition --------------------------------------------------------


class RoomCommand(BusRequest, frozen=True, kw_only=True):
    """A command to the one writer of a room, which does not begin it after `expires_at_monotonic_ms`.

    That is a time of the monotonic clock of the gateway that sends the command; the `deadline_ms` of a query is a time
    of the wall clock.
    """

    expires_at_monotonic_ms: int = msgspec.field(name="lifeEndsMs")  # an older name, kept on the wire
    room_id: str


class SendMessage(RoomCommand, frozen=True, kw_only=True, tag="send"):
    """Store a message and deliver it. Reply: `Sent`. The caller creates `message_id`."""

    message_id: str
    message: str
    client_message_id: str | None = None


class SendDirect(RoomCommand, frozen=True, kw_only=True, tag="direct"):
    """Like `SendMessage`, to the direct room of two users, which is created if needed.

    `room_id` is their `direct_room_id`.
    """

    message_id: str
    to_user_id: str
    message: str
    client_message_id: str | None = None


class CreateRoom(RoomCommand, frozen=True, kw_only=True, tag="create"):
    """Create a room. Reply: `RoomView`. A second command with the same `room_id` creates nothing."""

    name: str
    description: str
    type: str
    member_ids: tuple[str, ...] = ()


class UpdateRoom(RoomCommand, frozen=True, kw_only=True, tag="update"):
    """Change the given fields. Requires the creator or an admin. Reply: `RoomView`."""

    name: str | None = None
    description: str | None = None
    type: str | None = None


class DeleteRoom(RoomCommand, frozen=True, kw_only=True, tag="delete"):
    """Delete a room. Requires the creator or an admin. Reply: `Gone`."""


class JoinRoom(RoomCommand, frozen=True, kw_only=True, tag="join"):
    """Join a room. Idempotent. Reply: `RoomView`."""


class LeaveRoom(RoomCommand, frozen=True, kw_only=True, tag="leave"):
    """Leave a room. Idempotent. Reply: `RoomView`."""


class AddMember(RoomCommand, frozen=True, kw_only=True, tag="member.add"):
    """Add a member. Requires the creator or an admin. Idempotent. Reply: `MemberView`."""

    user_id: str


class RemoveMember(RoomCommand, frozen=True, kw_only=True, tag="member.remove"):
    """Remove a member. Requires the creator or an admin. Reply: `Gone`."""

    user_id: str


class MarkRead(RoomCommand, frozen=True, kw_only=True, tag="read"):
    """Move the caller's read mark to `seq`; it never goes back. Reply: `ReadMark`.

    The session `session_id` does not receive the delivery.
    """

    seq: int
    session_id: str = ""


class SetTyping(RoomCommand, frozen=True, kw_only=True, tag="typing"):
    """Start or stop typing. Reply: `TypingMark`."""

    is_typing: bool


class SubscribeRoom(RoomCommand, frozen=True, kw_only=True, tag="subscribe"):
    """Check the caller's access to a room, and get its head. Reply: `RoomHead`.

    The partition answers, so that subscriptions share one order with sends and removals.
    """


AnyRoomCommand = (
    SendMessage
    | SendDirect
    | CreateRoom
    | UpdateRoom
    | DeleteRoom
    | JoinRoom
    | LeaveRoom
    | AddMember
    | RemoveMember
    | MarkRead
    | SetTyping
    | SubscribeRoom
)


class RoomHead(WireStruct, frozen=True, kw_only=True):
    """The head of a room's log: its last entry `rev` and last message `seq`, after which a subscriber listens.

    `is_direct` rooms deliver to the sockets of their two users without a subscription.
    """

    seq: int
    rev: int
    active_now: int
    is_direct: bool = False


class Sent(WireStruct, frozen=True, kw_only=True):
    """The stored message. `repeated`: it had been stored before, by an earlier send or an earlier copy."""

    message: "MessageView"
    repeated: bool


class Gone(WireStruct, frozen=True, kw_only=True):
    """The id that was deleted or removed."""

    id: str


class RoomView(WireStruct, frozen=True, kw_only=True):
    """A room as REST shows it. `unread_count` is the caller's, 0 for a non-member.

    `active_now` is the number of members online; `direct_user_ids` are the two users of a direct room.
    """

    id: str
    name: str
    description: str
    type: Annotated[str, one_of("public", "private", "group")]
    member_count: int
    active_now: int
    last_message_at: Time | None
    created_by: str
    created_at: Time
    last_seq: int
    unread_count: int
    is_member: bool
    direct_user_ids: tuple[str, ...] | None = None


class MessageView(WireStruct, frozen=True, kw_only=True):
    """A message as REST shows it."""

    id: str
    chatroom_id: str
    user_id: str
    user: UserProfile
    message: str
    created_at: Time
    seq: int
    client_message_id: str | None


class MemberView(WireStruct, frozen=True, kw_only=True):
    """A member as REST shows it."""

    user_id: str
    user: UserProfile
    role: Annotated[str, one_of("creator", "member")]
    joined_at: Time
    status: OnlineStatus
    last_seen_at: Time | None


# Service requests, on `chat.queries` ----------------------------------------------------------------------------------


class ListRooms(ServiceRequest, frozen=True, kw_only=True, tag="rooms"):
    """List the rooms that the caller sees. Reply: `RoomPage`."""

    page: int
    limit: int
    type: str | None = None
    q: str | None = None

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return self.limit * RECORD_BYTES


class GetRoom(ServiceRequest, frozen=True, kw_only=True, tag="room"):
    """Get one room. Reply: `RoomView`."""

    room_id: str


class ListMessages(ServiceRequest, frozen=True, kw_only=True, tag="messages"):
    """List messages, newest first. Reply: `MessagePage`."""

    room_id: str
    page: int
    limit: int
    before: int | None = None
    after: int | None = None

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return self.limit * MESSAGE_ESTIMATE_BYTES


class SearchRoom(ServiceRequest, frozen=True, kw_only=True, tag="search.room"):
    """Find messages of a room that contain every word of `q`, newest first. Reply: `FoundMessages`.

    `user_id` is the author; `before` is the id of the message that the search goes on before.
    """

    room_id: str
    q: str
    limit: int
    user_id: str | None = None
    before: str | None = None

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return self.limit * MESSAGE_ESTIMATE_BYTES


class SearchJoinedRooms(ServiceRequest, frozen=True, kw_only=True, tag="search"):
    """Like `SearchRoom`, in all rooms of which the caller is a member."""

    q: str
    limit: int
    before: str | None = None

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return self.limit * MESSAGE_ESTIMATE_BYTES


class ListMembers(ServiceRequest, frozen=True, kw_only=True, tag="members"):
    """List the members of a room. Reply: `MemberPage`."""

    room_id: str
    page: int
    limit: int

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return self.limit * RECORD_BYTES


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

    Sent by a gateway that has seen a gap. Every rev seen by a gateway is committed, so the entries exist. The reply is
    shorter than requested beyond 1,000 entries or 8 MB, and while a majority does not have them yet.
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
    """Get the messages since `since_ms` in the direct rooms of these users. Reply: `RecentDirectMessages`.

    Sent by a gateway that may have lost lines. Only the last 1,000 messages of each room are considered.
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
    | SearchRoom
    | SearchJoinedRooms
    | ListMembers
    | ReplayMessages
    | ReplayEntries
    | ListRecentDirectMessages
    | GetPresence
)


class EntryDeliveries(WireStruct, frozen=True, kw_only=True, array_like=True):
    """The deliveries of an entry: its client frame, empty if it has none, and its control kinds."""

    rev: int
    frame: str
    controls: tuple[tuple[str, str], ...] = ()


class ReplayedEntries(WireStruct, frozen=True, kw_only=True):
    """Consecutive entries. `is_deleted`: the room and its entries are deleted."""

    entries: tuple[EntryDeliveries, ...]
    is_deleted: bool = False


class RoomPage(WireStruct, frozen=True, kw_only=True):
    """A page of rooms; `total` counts all pages."""

    items: tuple[RoomView, ...]
    total: int


class MessagePage(WireStruct, frozen=True, kw_only=True):
    """A page of messages; `total` counts all pages."""

    items: tuple[MessageView, ...]
    total: int


class FoundMessages(WireStruct, frozen=True, kw_only=True):
    """Messages that a search found. With `next_before`, older ones were not looked at."""

    items: tuple[MessageView, ...]
    next_before: str | None = None


class MemberPage(WireStruct, frozen=True, kw_only=True):
    """A page of members; `total` counts all pages."""

    items: tuple[MemberView, ...]
    total: int


class DirectMessagePosition(WireStruct, frozen=True, kw_only=True, array_like=True):
    """The position of a message in the log of its room, and the time when it was stored."""

    rev: int
    created_at_ms: int


class DirectRoom(WireStruct, frozen=True, kw_only=True):
    """A direct room and the positions of its recent messages, in order, at least one."""

    room_id: str
    user_ids: tuple[str, str]
    positions: tuple[DirectMessagePosition, ...] = msgspec.field(name="posts")


class RecentDirectMessages(WireStruct, frozen=True, kw_only=True):
    """Recent messages by room. `is_whole` is False if there were more than one reply can hold."""

    rooms: tuple[DirectRoom, ...]
    is_whole: bool = True


# Presence reports, on `chat.presences` -------------------------------------------------------------------------------


PRESENCE_PAGE_MAX = 500


class ReportPresence(ServiceRequest, frozen=True, kw_only=True, tag="presence.report"):
    """Renew a gateway's lease, or report a page of users that came online or went offline there.

    A page has at most 500 users; one without any renews the lease. With `begins_lease`, `node_id` names a new lease,
    which has no users yet: a gateway whose lease was lost begins another, under another name, and reports its users
    again, page by page. `isFull` is the older name, kept on the wire: gateways up to 0.3 list all their users with it.
    With `is_leaving` the gateway is stopping, and its users have a grace period to reconnect elsewhere.
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
