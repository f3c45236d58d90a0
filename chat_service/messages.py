"""Messages: the record, its client frame, its REST view. Pure."""

import msgspec

from shared.chat_commands import MessageView
from shared.protocol import ChatMessageData, UserProfile, frame
from shared.times import to_iso


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it is stored; `seq` counts the room's messages from 1, without gaps."""

    id: str
    room_id: str
    seq: int
    user_id: str
    user: UserProfile
    text: str
    client_message_id: str | None
    created_at_ms: int


def message_frame(message: Message) -> bytes:
    """The `chat:message` frame: the same bytes live, replayed and delivered again."""
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
    """The message as REST shows it."""
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
