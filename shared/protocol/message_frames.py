"""Server frames about changes of messages. Pure. `rev` is the place of the change in the log of its room."""

import msgspec

from shared.protocol.message_parts import ReactionChange, ReactionCount
from shared.protocol.validation import Time
from shared.protocol.wire_struct import WireStruct

CHANGES_SHOWN_MAX = 100


class ChangeAckData(WireStruct, frozen=True, kw_only=True):
    """The change of the message is on disk."""

    chatroom_id: str
    message_id: str
    rev: int


class ChatUpdatedData(WireStruct, frozen=True, kw_only=True):
    """A message was edited. A replay shows the current text."""

    chatroom_id: str
    rev: int
    message_id: str
    user_id: str
    message: str
    edited_at: Time
    mentions: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class ChatDeletedData(WireStruct, frozen=True, kw_only=True):
    """A message was deleted; a tombstone stays in its place."""

    chatroom_id: str
    rev: int
    message_id: str
    deleted_by: str
    deleted_at: Time


class ChatReactionData(WireStruct, frozen=True, kw_only=True):
    """Users reacted to a message, or removed their reactions. `changes` is absent if there are more than 100."""

    chatroom_id: str
    rev: int
    message_id: str
    reactions: tuple[ReactionCount, ...]
    changes: tuple[ReactionChange, ...] | msgspec.UnsetType = msgspec.UNSET


class ChatPinnedData(WireStruct, frozen=True, kw_only=True):
    """A message was pinned, or unpinned."""

    chatroom_id: str
    rev: int
    message_id: str
    pinned: bool
    user_id: str


CHANGE_FRAMES: dict[str, type[msgspec.Struct]] = {
    "chat:updated": ChatUpdatedData,
    "chat:deleted": ChatDeletedData,
    "chat:reaction": ChatReactionData,
    "chat:pinned": ChatPinnedData,
}
