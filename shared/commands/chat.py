"""What gateways ask of chat_service: commands to the one writer of a room, and queries. Pure."""

from typing import Annotated

from shared.commands.command import Command
from shared.protocol.server_frames import UserProfile
from shared.protocol.validation import OnlineStatus, Time, one_of
from shared.protocol.wire_struct import WireStruct

# Room commands, on `chat.<partition of the room>` -------------------------------------------------------------------


class RoomCommand(Command, frozen=True, kw_only=True):
    """A command to the one writer of a room."""

    room_id: str


class SendMessage(RoomCommand, frozen=True, kw_only=True, tag="send"):
    """Store a message and deliver it. Reply: `Sent`. `message_id` is the caller's to make, once."""

    message_id: str
    message: str
    client_message_id: str | None = None


class SendDirect(RoomCommand, frozen=True, kw_only=True, tag="direct"):
    """Like `SendMessage`, into the one room of two users, made if need be; `room_id` is `direct_room_id` of them."""

    message_id: str
    to_user_id: str
    message: str
    client_message_id: str | None = None


class CreateRoom(RoomCommand, frozen=True, kw_only=True, tag="create"):
    """Reply: `RoomView`. Created twice with one `room_id` (redelivery) is created once."""

    name: str
    description: str
    type: str
    member_ids: tuple[str, ...] = ()


class UpdateRoom(RoomCommand, frozen=True, kw_only=True, tag="update"):
    """Change what is given. Creator or admin. Reply: `RoomView`."""

    name: str | None = None
    description: str | None = None
    type: str | None = None


class DeleteRoom(RoomCommand, frozen=True, kw_only=True, tag="delete"):
    """Creator or admin. Reply: `Gone`."""


class JoinRoom(RoomCommand, frozen=True, kw_only=True, tag="join"):
    """Idempotent. Reply: `RoomView`."""


class LeaveRoom(RoomCommand, frozen=True, kw_only=True, tag="leave"):
    """Idempotent. Reply: `RoomView`."""


class AddMember(RoomCommand, frozen=True, kw_only=True, tag="member.add"):
    """Creator or admin. Idempotent. Reply: `MemberView`."""

    user_id: str


class RemoveMember(RoomCommand, frozen=True, kw_only=True, tag="member.remove"):
    """Creator or admin. Reply: `Gone`."""

    user_id: str


class MarkRead(RoomCommand, frozen=True, kw_only=True, tag="read"):
    """The caller has read up to `seq`; never goes back. Reply: `ReadMark`. `session_id` is not told of it again."""

    seq: int
    session_id: str = ""


class SetTyping(RoomCommand, frozen=True, kw_only=True, tag="typing"):
    """The caller types, or no longer does. Reply: `TypingMark`."""

    is_typing: bool


class SubscribeRoom(RoomCommand, frozen=True, kw_only=True, tag="subscribe"):
    """May the caller listen, and from which seq on? Reply: `RoomHead`.

    It goes through the partition, so that it stands in one order with sends and removals.
    """


RoomCommands = (
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
    """`is_direct` rooms deliver to their two users' sockets without a subscription."""

    seq: int
    active_now: int
    is_direct: bool = False


class Sent(WireStruct, frozen=True, kw_only=True):
    """Where a message stands now; `repeated` if it was there before, by its clientMessageId or by redelivery."""

    message: "MessageView"
    repeated: bool


class Gone(WireStruct, frozen=True, kw_only=True):
    """What was deleted or removed."""

    id: str


class RoomView(WireStruct, frozen=True, kw_only=True):
    """A room as REST shows it. `unread_count` is the caller's; 0 for who is no member.

    `active_now`: members who are online now. `direct_user_ids`: the two users of a direct room.
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


# Queries, on `chat.query` -------------------------------------------------------------------------------------------


class ListRooms(Command, frozen=True, kw_only=True, tag="rooms"):
    """Reply: `RoomPage`."""

    page: int
    limit: int
    type: str | None = None
    q: str | None = None


class GetRoom(Command, frozen=True, kw_only=True, tag="room"):
    """Reply: `RoomView`."""

    room_id: str


class ListMessages(Command, frozen=True, kw_only=True, tag="messages"):
    """Newest first. Reply: `MessagePage`."""

    room_id: str
    page: int
    limit: int
    before: int | None = None
    after: int | None = None


class ListMembers(Command, frozen=True, kw_only=True, tag="members"):
    """Reply: `MemberPage`."""

    room_id: str
    page: int
    limit: int


class ReplayMessages(Command, frozen=True, kw_only=True, tag="replay"):
    """The messages with `after` < seq ≤ `through`, oldest first, as finished frames. Reply: `Replay`.

    Asked by a gateway whose client may listen: the partition has said so. Of more than 1,000 messages or 8 MB only the
    first are in the reply.
    """

    room_id: str
    after: int
    through: int


class GetPresence(Command, frozen=True, kw_only=True, tag="presence"):
    """Reply: `PresenceState`, in the order asked; who has never been seen is offline."""

    user_ids: tuple[str, ...]


class RecentDirects(Command, frozen=True, kw_only=True, tag="directs"):
    """What was said since `since_ms` in the direct rooms of these users. Reply: `DirectPosts`.

    Asked by a gateway that may have lost lines. Of a room at most its last 1,000 messages are looked at.
    """

    user_ids: tuple[str, ...]
    since_ms: int


ChatQueries = ListRooms | GetRoom | ListMessages | ListMembers | ReplayMessages | RecentDirects | GetPresence


class RoomPage(WireStruct, frozen=True, kw_only=True):
    items: tuple[RoomView, ...]
    total: int


class MessagePage(WireStruct, frozen=True, kw_only=True):
    items: tuple[MessageView, ...]
    total: int


class MemberPage(WireStruct, frozen=True, kw_only=True):
    items: tuple[MemberView, ...]
    total: int


class DirectPost(WireStruct, frozen=True, kw_only=True, array_like=True):
    """Where a message stands, and when it was stored."""

    seq: int
    created_at_ms: int


class DirectRoom(WireStruct, frozen=True, kw_only=True):
    """`posts` are in order, and not none."""

    room_id: str
    user_ids: tuple[str, str]
    posts: tuple[DirectPost, ...]


class DirectPosts(WireStruct, frozen=True, kw_only=True):
    """`is_whole` False: there was more than one answer holds."""

    rooms: tuple[DirectRoom, ...]
    is_whole: bool = True


# Presence reports, on `chat.presence` -------------------------------------------------------------------------------


class ReportPresence(Command, frozen=True, kw_only=True, tag="presence.report"):
    """A gateway's lease renewed, and the users that came to it and went from it since its last report.

    `is_full`: `came` is everyone who is here, and who is not in it is gone. `is_leaving`: the gateway stops; its users
    have the grace to come back elsewhere. Reply: `PresenceReported`.
    """

    node_id: str
    came: tuple[str, ...] = ()
    went: tuple[str, ...] = ()
    is_full: bool = False
    is_leaving: bool = False


class PresenceReported(WireStruct, frozen=True, kw_only=True):
    """`lease_is_known` False: the lease had run out and its users were taken offline; send a full report."""

    lease_is_known: bool
