"""Rooms, messages and members as chat_service answers with them, and as REST shows them. Pure."""

from typing import Annotated

from msgspec import UNSET, UnsetType

from shared.protocol.message_parts import Attachment, ReactionCount, ReplyPreview
from shared.protocol.server_frames import UserProfile
from shared.protocol.validation import OnlineStatus, Time, one_of
from shared.protocol.wire_struct import WireStruct


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
    """A message as REST shows it. Empty optional fields are omitted; see `ChatMessageData`."""

    id: str
    chatroom_id: str
    user_id: str
    user: UserProfile
    message: str
    created_at: Time
    seq: int
    rev: int
    client_message_id: str | None
    reply_to: ReplyPreview | UnsetType = UNSET
    mentions: tuple[str, ...] | UnsetType = UNSET
    mention_room: bool | UnsetType = UNSET
    attachments: tuple[Attachment, ...] | UnsetType = UNSET
    symbols: tuple[str, ...] | UnsetType = UNSET
    reactions: tuple[ReactionCount, ...] | UnsetType = UNSET
    edited_at: Time | UnsetType = UNSET
    deleted_at: Time | UnsetType = UNSET
    deleted_by: str | UnsetType = UNSET


class PinView(WireStruct, frozen=True, kw_only=True):
    """A pinned message, who pinned it, and when."""

    message: MessageView
    by: str
    at: Time


class ReactionView(WireStruct, frozen=True, kw_only=True):
    """One user's reaction to a message."""

    user_id: str
    user: UserProfile
    emoji: str
    at: Time


class MemberView(WireStruct, frozen=True, kw_only=True):
    """A member as REST shows it."""

    user_id: str
    user: UserProfile
    role: Annotated[str, one_of("creator", "moderator", "member")]
    joined_at: Time
    status: OnlineStatus
    last_seen_at: Time | None
