"""Commands to the one writer of a room, in bodies to the owner of its partition, and their answers. Pure."""

from typing import Literal

import msgspec

from shared.commands.chat_views import MessageView
from shared.commands.command import BusRequest, ReplyError
from shared.protocol.message_parts import MessageExtras
from shared.protocol.wire_struct import WireStruct

MemberRole = Literal["creator", "moderator", "member"]


class RoomCommand(BusRequest, frozen=True, kw_only=True):
    """A command to the one writer of a room, which does not begin it after `expires_at_monotonic_ms`.

    That is a time of the monotonic clock of the gateway that sends the command; the `deadline_ms` of a query is a time
    of the wall clock.
    """

    expires_at_monotonic_ms: int = msgspec.field(name="lifeEndsMs")  # an older name, kept on the wire
    room_id: str


class SendMessage(RoomCommand, frozen=True, kw_only=True, tag="send"):
    """Store a message and deliver it. Reply: `Sent`. The caller creates `message_id`.

    With a `refusal` (the gateway found unknown symbols, or could not look them up) nothing is stored: the reply is a
    refusal, or the stored message if this repeats one.
    """

    message_id: str
    message: str
    client_message_id: str | None = None
    extras: MessageExtras | None = None
    refusal: ReplyError | None = None


class SendDirect(RoomCommand, frozen=True, kw_only=True, tag="direct"):
    """Like `SendMessage`, to the direct room of two users, which is created if needed.

    `room_id` is their `direct_room_id`.
    """

    message_id: str
    to_user_id: str
    message: str
    client_message_id: str | None = None
    extras: MessageExtras | None = None
    refusal: ReplyError | None = None


class EditMessage(RoomCommand, frozen=True, kw_only=True, tag="edit"):
    """Change the text of the caller's message, and its mentions unless `mentions` is None. Reply: `Changed`."""

    message_id: str
    message: str
    mentions: tuple[str, ...] | None = None


class DeleteMessage(RoomCommand, frozen=True, kw_only=True, tag="message.delete"):
    """Replace a message by a tombstone. Reply: `Changed`.

    The caller must be its author, or a moderator, creator or admin who ranks above the author; in a direct room, only
    the author may.
    """

    message_id: str


class React(RoomCommand, frozen=True, kw_only=True, tag="react"):
    """Add the caller's reaction to a message, or remove it. Idempotent. Reply: `Changed`."""

    message_id: str
    emoji: str
    is_removal: bool = False


class PinMessage(RoomCommand, frozen=True, kw_only=True, tag="pin"):
    """Pin a message, or unpin it. Idempotent. Reply: `Changed`.

    The caller must be a moderator, the creator or an admin; in a direct room, either user may.
    """

    message_id: str
    is_removal: bool = False


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
    """Make a user a member, with `role` if given, or change a member's role to it. Idempotent. Reply: `MemberView`.

    The caller must be the creator or an admin.
    """

    user_id: str
    role: MemberRole | None = None


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
    | EditMessage
    | DeleteMessage
    | React
    | PinMessage
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
    """The head of a room: `rev` is the last entry of its log, and `seq` its last message.

    A subscriber receives the entries and messages that follow them.

    `changed_rev` is the last entry that changed an earlier message: history read before it is outdated.
    `is_direct` rooms deliver to the sockets of their two users without a subscription.
    """

    seq: int
    rev: int
    active_now: int
    is_direct: bool = False
    changed_rev: int = 0


class Sent(WireStruct, frozen=True, kw_only=True):
    """The stored message. `repeated`: it had been stored before, by an earlier send or an earlier copy."""

    message: MessageView
    repeated: bool


class Changed(WireStruct, frozen=True, kw_only=True):
    """A message was changed by the entry `rev`, which may be an earlier one with the same effect."""

    chatroom_id: str
    message_id: str
    rev: int


class Gone(WireStruct, frozen=True, kw_only=True):
    """The id that was deleted or removed."""

    id: str
