"""Decisions on messages: send, direct message, subscribe, read mark, typing. Pure.

Each function decides one command: it returns the reply, or raises Refusal.
"""

from chat_service.rooms.change_decisions import check_mentions
from chat_service.rooms.decision import Decision
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.message import NO_EXTRAS, Message, message_view, preview_of
from chat_service.rooms.room import Room, RoomType
from shared.bus.delivery import DeliveryKind, room_channel, user_channel
from shared.commands.chat import MarkRead, RoomHead, SendDirect, SendMessage, Sent, SetTyping
from shared.errors import ErrorCode, Refusal
from shared.protocol.message_parts import MessageExtras, ReplyPreview
from shared.protocol.server_frames import ReadMark, TypingMark, UserProfile, frame

READ_BROADCAST_MEMBERS_MAX = 100
DIRECT_ROOM_NAME = "Direct message"


def send(decision: Decision, command: SendMessage | SendDirect) -> Sent:
    """Append a message, once per clientMessageId. A sender who is not a member joins."""
    room = decision.visible_room()
    user_id, key = decision.caller.user_id, command.client_message_id
    if key is not None and (repeated := decision.repeated(key)) is not None:
        return sent_again(repeated)
    extras = command.extras or NO_EXTRAS
    preview = _preview_of_replied_to(decision, extras)
    _check_audience(decision, room, extras)
    decision.check_limits()
    profile = decision.pending.profile
    member = decision.joined_member(user_id) or decision.add_member(room, user_id, profile)
    room.last_seq += 1
    room.last_message_at_ms = room.active_at_ms = decision.now_ms
    message = Message(
        id=command.message_id,
        room_id=room.id,
        seq=room.last_seq,
        rev=room.rev + 1,
        user_id=user_id,
        user=profile,
        text=command.message,
        client_message_id=key,
        created_at_ms=decision.now_ms,
        extras=extras,
        preview=preview,
    )
    member.read_seq = message.seq
    decision.record(EntryKind.MESSAGE, message)
    decision.state.recent.remember_uncommitted(message)
    return Sent(message=message_view(message), repeated=False)


def send_direct(decision: Decision, command: SendDirect) -> Sent:
    """Append a message to the room of two users; the first message creates the room in the same entry."""
    if decision.state.room is None:
        caller = decision.caller.user_id
        _check_first_extras(command.extras or NO_EXTRAS, {caller, command.to_user_id})
        decision.check_limits()
        room = decision.state.room = Room(
            id=decision.room_id,
            name=DIRECT_ROOM_NAME,
            description="",
            type=RoomType.PRIVATE,
            created_by=caller,
            creator_id=caller,
            created_at_ms=decision.now_ms,
            active_at_ms=decision.now_ms,
            direct=(caller, command.to_user_id),
        )
        decision.change_settings()
        decision.add_member(room, caller, decision.pending.profile)
        decision.add_member(room, command.to_user_id, UserProfile())
    return send(decision, command)


def sent_before(entry: LogEntry) -> Sent:
    """Return the message that an earlier copy of the command appended."""
    assert entry.message is not None, "the entry of a send carries its message"  # noqa: S101
    return sent_again(entry.message)


def sent_again(message: Message) -> Sent:
    """Return the answer to a repeat of a stored message."""
    return Sent(message=message_view(message), repeated=True)


def subscribe(decision: Decision) -> RoomHead:
    """Return the head of the log, from which the caller may listen."""
    room = decision.visible_room()
    return RoomHead(
        seq=room.last_seq,
        rev=room.rev,
        active_now=decision.state.active_now,
        is_direct=room.direct is not None,
        changed_rev=room.changed_rev,
    )


def mark_read(decision: Decision, command: MarkRead) -> ReadMark:
    """Move the caller's read mark forward, and deliver it to the others if the room is small enough."""
    room = decision.visible_room()
    member = decision.joined_member(decision.caller.user_id)
    if member is None:
        raise Refusal(ErrorCode.FORBIDDEN, "only members of the room have a read mark")
    if command.seq > room.last_seq:
        raise Refusal.invalid("seq", f"is beyond the last message of the room, {room.last_seq}")
    if command.seq > member.read_seq or decision.pending.is_resent:
        decision.mark_read(member, max(command.seq, member.read_seq))
        mark = ReadMark(chatroom_id=room.id, user_id=member.user_id, seq=member.read_seq)
        _deliver_read_mark(decision, room, mark, command.session_id)
    return ReadMark(chatroom_id=room.id, user_id=member.user_id, seq=member.read_seq)


def set_typing(decision: Decision, command: SetTyping) -> TypingMark:
    """Return the mark if the caller may type here; the partition paces and ends it (see `typing_marks`)."""
    room = decision.visible_room()
    return TypingMark(chatroom_id=room.id, user_id=decision.caller.user_id, is_typing=command.is_typing)


def _preview_of_replied_to(decision: Decision, extras: MessageExtras) -> ReplyPreview | None:
    """Return the preview of the message that this one replies to, if any. Raises NOT_FOUND for an unknown one."""
    return None if extras.reply_to is None else preview_of(decision.message(extras.reply_to))


def _check_audience(decision: Decision, room: Room, extras: MessageExtras) -> None:
    """Raise Refusal unless the caller may mention these users, or the room."""
    if extras.mentions:
        check_mentions(decision, room, extras.mentions)
    if extras.mention_room and not decision.moderates(room):
        raise Refusal(ErrorCode.FORBIDDEN, "mentionRoom: only moderators of the room and those above them may do this")


def _check_first_extras(extras: MessageExtras, users: set[str]) -> None:
    """Check the references of a direct room's first message, before the room exists."""
    if extras.reply_to is not None:
        raise Refusal.not_found("message")
    for user_id in extras.mentions:
        if user_id not in users:
            raise Refusal.invalid("mentions", f"{user_id} is not a member of the room")


def _deliver_read_mark(decision: Decision, room: Room, mark: ReadMark, session_id: str) -> None:
    frame_bytes = frame("chat:read", mark)
    decision.deliver(user_channel(mark.user_id), DeliveryKind.TRANSIENT, frame_bytes, key=session_id)
    if room.direct is not None:
        for user_id in set(room.direct) - {mark.user_id}:
            decision.deliver(user_channel(user_id), DeliveryKind.TRANSIENT, frame_bytes)
    elif room.member_count <= READ_BROADCAST_MEMBERS_MAX:
        decision.deliver(room_channel(room.id), DeliveryKind.TRANSIENT, frame_bytes, key=mark.user_id)
