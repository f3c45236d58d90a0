"""Messages: the record, its client frame, its REST view. Pure."""

from collections import OrderedDict

import msgspec

from shared.commands.chat_views import MessageView
from shared.protocol.server_frames import ChatMessageData, UserProfile, frame
from shared.times import to_iso


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A stored message; `seq` counts the room's messages from 1, without gaps."""

    id: str
    room_id: str
    seq: int
    user_id: str
    user: UserProfile
    text: str
    client_message_id: str | None
    created_at_ms: int


def message_frame(message: Message) -> bytes:
    """Return the `chat:message` frame: the same bytes live, replayed and redelivered."""
    return frame(
        "chat:message",
        ChatMessageData(
            chatroom_id=message.room_id,
            message_id=message.id,
            user_id=message.user_id,
            message=message.text,
            timestamp=to_iso(message.created_at_ms),
            seq=message.seq,
            client_message_id=message.client_message_id,
            user=message.user,
        ),
    )


def message_view(message: Message) -> MessageView:
    """Return the message as REST shows it."""
    return MessageView(
        id=message.id,
        chatroom_id=message.room_id,
        user_id=message.user_id,
        user=message.user,
        message=message.text,
        created_at=to_iso(message.created_at_ms),
        seq=message.seq,
        client_message_id=message.client_message_id,
    )


class RecentMessages:
    """The last messages with a clientMessageId: detects most duplicates without a database query.

    Bound: number of messages and bytes of text; the oldest are evicted.
    """

    def __init__(self, max_count: int = 10_000, max_bytes: int = 8 * 1024 * 1024) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._messages: OrderedDict[tuple[str, str, str], Message] = OrderedDict()

    def __len__(self) -> int:
        return len(self._messages)

    def find(self, room_id: str, user_id: str, client_message_id: str) -> Message | None:
        """Return the message that a user sent into a room under this id, if it is remembered."""
        return self._messages.get((room_id, user_id, client_message_id))

    def remember(self, message: Message) -> None:
        """Remember a message, unless it has no clientMessageId."""
        if message.client_message_id is None:
            return
        key = (message.room_id, message.user_id, message.client_message_id)
        before = self._messages.pop(key, None)
        self._size_bytes += _size_of(message) - (0 if before is None else _size_of(before))
        self._messages[key] = message
        while len(self._messages) > self._max_count or self._size_bytes > self._max_bytes:
            _, oldest = self._messages.popitem(last=False)
            self._size_bytes -= _size_of(oldest)

    def clear(self) -> None:
        """Forget all messages."""
        self._messages.clear()
        self._size_bytes = 0


def _size_of(message: Message) -> int:
    return len(message.text.encode())
