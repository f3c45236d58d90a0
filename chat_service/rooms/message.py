"""Messages: the record, its client frame, its REST view. Pure."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import UNSET

from shared.commands.chat_views import MessageView
from shared.protocol.message_parts import EXCERPT_MAX, MessageExtras, ReactionCount, ReplyPreview
from shared.protocol.server_frames import ChatMessageData, UserProfile, frame
from shared.times import to_iso

NO_EXTRAS = MessageExtras()


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A stored message as it is now; `seq` counts the room's messages from 1, without gaps.

    `rev` is that of its own entry. `preview` shows the message that it replies to. `edit_rev` is the entry of the last
    edit, and `erased_rev` that of its deletion; 0 if there is none. A deleted message is a tombstone without content.
    """

    id: str
    room_id: str
    seq: int
    rev: int
    user_id: str
    user: UserProfile
    text: str
    client_message_id: str | None
    created_at_ms: int
    extras: MessageExtras = NO_EXTRAS
    preview: ReplyPreview | None = None
    reactions: tuple[ReactionCount, ...] = ()
    edited_at_ms: int | None = None
    edit_rev: int = 0
    deleted_at_ms: int | None = None
    deleted_by: str | None = None
    erased_rev: int = 0

    @property
    def is_deleted(self) -> bool:
        """Return whether the message is a tombstone."""
        return self.deleted_at_ms is not None

    @property
    def size_bytes(self) -> int:
        """Return the size of the content in UTF-8."""
        return len(self.text.encode()) + sum(len(item.url) for item in self.extras.attachments)

    @property
    def is_plain(self) -> bool:
        """Return whether there is nothing to show but the text. HOT: almost every message."""
        return self.extras is NO_EXTRAS and not self.reactions and self.edited_at_ms is self.deleted_at_ms is None


def tombstone(message: Message, *, by: str, at_ms: int, rev: int) -> Message:
    """Return a deleted message: its place, author and time, without its content."""
    return msgspec.structs.replace(
        message,
        text="",
        extras=NO_EXTRAS,
        preview=None,
        reactions=(),
        edited_at_ms=None,
        edit_rev=0,
        deleted_at_ms=at_ms,
        deleted_by=by,
        erased_rev=rev,
    )


def preview_of(message: Message) -> ReplyPreview:
    """Return a message as its replies show it."""
    return ReplyPreview(message_id=message.id, user_id=message.user_id, message=message.text[:EXCERPT_MAX])


def previewed(messages: Iterable[Message], replied_to: Mapping[str, Message]) -> list[Message]:
    """Return the messages with previews of the messages that they reply to, known ones only."""
    return [
        message
        if message.preview is None or (found := replied_to.get(message.preview.message_id)) is None
        else msgspec.structs.replace(message, preview=preview_of(found))
        for message in messages
    ]


def message_frame(message: Message) -> bytes:
    """Return the `chat:message` frame: the same bytes live, replayed and redelivered, until the message changes."""
    data = ChatMessageData(
        chatroom_id=message.room_id,
        message_id=message.id,
        user_id=message.user_id,
        message=message.text,
        timestamp=to_iso(message.created_at_ms),
        seq=message.seq,
        rev=message.rev,
        client_message_id=message.client_message_id,
        user=message.user,
    )
    return frame("chat:message", data if message.is_plain else msgspec.structs.replace(data, **_parts_of(message)))


def message_view(message: Message) -> MessageView:
    """Return the message as REST shows it."""
    view = MessageView(
        id=message.id,
        chatroom_id=message.room_id,
        user_id=message.user_id,
        user=message.user,
        message=message.text,
        created_at=to_iso(message.created_at_ms),
        seq=message.seq,
        rev=message.rev,
        client_message_id=message.client_message_id,
    )
    return view if message.is_plain else msgspec.structs.replace(view, **_parts_of(message))


def _parts_of(message: Message) -> dict[str, object]:
    """Return the parts to show beyond the text, by the names that frame and view have in common."""
    extras = message.extras
    parts = {
        "reply_to": message.preview,
        "mentions": extras.mentions,
        "mention_room": extras.mention_room,
        "attachments": extras.attachments,
        "symbols": extras.symbols,
        "reactions": message.reactions,
        "edited_at": None if message.edited_at_ms is None else to_iso(message.edited_at_ms),
        "deleted_at": None if message.deleted_at_ms is None else to_iso(message.deleted_at_ms),
        "deleted_by": message.deleted_by,
    }
    return {name: part or UNSET for name, part in parts.items()}


class RecentMessages:
    """The last messages with a clientMessageId: detects most duplicates without a database query.

    Bound: number of messages and bytes of text; the oldest are evicted. 2,000 are about 5 s of a partition's highest
    rate. A later repeat meets the unique index of the log and is looked up there.
    """

    def __init__(self, max_count: int = 2_000, max_bytes: int = 2 * 1024 * 1024) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._messages: OrderedDict[tuple[str, str, str], Message] = OrderedDict()
        self._uncommitted: list[Message] = []

    def __len__(self) -> int:
        return len(self._messages)

    def find(self, room_id: str, user_id: str, client_message_id: str) -> Message | None:
        """Return the message that a user sent into a room under this id, if it is remembered."""
        return self._messages.get((room_id, user_id, client_message_id))

    def remember(self, message: Message) -> None:
        """Remember a message as it is now, if it has a clientMessageId.

        The text of its preview is left out: it belongs to another message, which may be edited or deleted.
        """
        if (key := _key_of(message)) is None:
            return
        if message.preview is not None:
            message = msgspec.structs.replace(message, preview=msgspec.structs.replace(message.preview, message=""))
        before = self._messages.pop(key, None)
        self._size_bytes += message.size_bytes - (0 if before is None else before.size_bytes)
        self._messages[key] = message
        while len(self._messages) > self._max_count or self._size_bytes > self._max_bytes:
            _, oldest = self._messages.popitem(last=False)
            self._size_bytes -= oldest.size_bytes

    def remember_uncommitted(self, message: Message) -> None:
        """Remember a message that is about to be committed; `keep_uncommitted` or `forget_uncommitted` follows."""
        self.remember(message)
        self._uncommitted.append(message)

    def keep_uncommitted(self) -> None:
        """Note that the commit succeeded."""
        self._uncommitted.clear()

    def forget_uncommitted(self) -> None:
        """Forget the messages of a commit that failed."""
        for message in self._uncommitted:
            self.forget(message)
        self._uncommitted.clear()

    def forget(self, message: Message) -> None:
        """Forget a message that has changed."""
        key = _key_of(message)
        if key is not None and (before := self._messages.pop(key, None)) is not None:
            self._size_bytes -= before.size_bytes

    def forget_room(self, room_id: str) -> None:
        """Forget the messages of a room, some of which another process may have changed."""
        for message in [message for message in self._messages.values() if message.room_id == room_id]:
            self.forget(message)


def _key_of(message: Message) -> tuple[str, str, str] | None:
    if message.client_message_id is None:
        return None
    return message.room_id, message.user_id, message.client_message_id
