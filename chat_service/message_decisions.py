"""Decisions on messages: send, direct message, subscribe, read mark, typing. Pure.

Each function decides one command: it returns the reply, or None for no reply, and raises Refusal.
"""

from chat_service.decision import Decision
from chat_service.messages import Message, message_frame, message_view
from chat_service.rooms import Room, RoomType
from shared.bus.delivery import DeliveryClass, room_channel, user_channel
from shared.commands.chat import MarkRead, RoomHead, SendDirect, SendMessage, Sent, SetTyping
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import ReadMark, TypingMark, UserProfile, frame

READ_BROADCAST_MEMBERS_MAX = 100
DIRECT_ROOM_NAME = "Direct message"


def send(decision: Decision, command: SendMessage | SendDirect) -> Sent | None:
    """Store and deliver a message, once per message id and clientMessageId. The sender joins if need be."""
    if (stored := decision.state.stored.get(command.message_id)) is not None:
        return _deliver_again(decision, stored)
    room = decision.visible_room()
    if decision.pending.expired:
        return None
    user_id, key = decision.caller.user_id, command.client_message_id
    if key is not None and (stored := decision.state.recent.find(room.id, user_id, key)) is not None:
        return Sent(message=message_view(stored), repeated=True)
    _check_rate(decision)
    profile = decision.pending.profile
    member = decision.active_member(user_id) or decision.add_member(room, user_id, profile, announce=True)
    room.last_seq += 1
    room.last_message_at_ms = room.active_at_ms = decision.now_ms
    message = Message(
        id=command.message_id,
        room_id=room.id,
        seq=room.last_seq,
        user_id=user_id,
        user=profile,
        text=command.message,
        client_message_id=key,
        created_at_ms=decision.now_ms,
    )
    member.read_seq = message.seq
    decision.changes.messages.append(message)
    decision.state.recent.remember(message)
    _deliver_message(decision, message)
    return Sent(message=message_view(message), repeated=False)


def send_direct(decision: Decision, command: SendDirect) -> Sent | None:
    """Send a message into the room of two users, which is made for the first one."""
    if decision.state.room is None and not decision.pending.expired:
        _check_rate(decision)
        caller = decision.caller.user_id
        room = decision.state.room = Room(
            id=decision.room_id,
            name=DIRECT_ROOM_NAME,
            description="",
            type=RoomType.PRIVATE,
            created_by=caller,
            created_at_ms=decision.now_ms,
            active_at_ms=decision.now_ms,
            direct=(caller, command.to_user_id),
        )
        decision.add_member(room, caller, decision.pending.profile, announce=False)
        decision.add_member(room, command.to_user_id, UserProfile(), announce=False)
    return send(decision, command)


def subscribe(decision: Decision) -> RoomHead:
    """Return the seq from which the caller may listen."""
    room = decision.visible_room()
    return RoomHead(seq=room.last_seq, active_now=decision.state.active_now, is_direct=room.direct is not None)


def mark_read(decision: Decision, command: MarkRead) -> ReadMark:
    """Move the caller's read mark forward, and tell the others if the room is small enough."""
    room = decision.visible_room()
    member = decision.active_member(decision.caller.user_id)
    if member is None:
        raise Refusal(ErrorCode.FORBIDDEN, "only members of the room have a read mark")
    if command.seq > room.last_seq:
        raise Refusal.invalid("seq", f"is beyond the last message of the room, {room.last_seq}")
    if command.seq > member.read_seq or decision.pending.redelivered:
        decision.mark_read(member, max(command.seq, member.read_seq))
        mark = ReadMark(chatroom_id=room.id, user_id=member.user_id, seq=member.read_seq)
        _deliver_read_mark(decision, room, mark, command.session_id)
    return ReadMark(chatroom_id=room.id, user_id=member.user_id, seq=member.read_seq)


def set_typing(decision: Decision, command: SetTyping) -> TypingMark:
    """Return the mark if the caller may type here; the partition paces and ends it (see `typing_marks`)."""
    room = decision.visible_room()
    return TypingMark(chatroom_id=room.id, user_id=decision.caller.user_id, is_typing=command.is_typing)


def _check_rate(decision: Decision) -> None:
    if decision.pending.wait_ms:
        raise Refusal(ErrorCode.RATE_LIMITED, "too many messages", retry_after_ms=decision.pending.wait_ms)


def _deliver_again(decision: Decision, stored: Message) -> Sent:
    """Deliver a message that an earlier try stored, under its seq."""
    _catch_up_room(decision, stored)
    _deliver_message(decision, stored)
    if (member := decision.active_member(stored.user_id)) is not None and member.read_seq < stored.seq:
        decision.mark_read(member, stored.seq)
    return Sent(message=message_view(stored), repeated=True)


def _catch_up_room(decision: Decision, stored: Message) -> None:
    """Bring the room's record up to date: a crash came between storing the message and making its direct room."""
    room = decision.state.room
    if room is not None and stored.seq > room.last_seq:
        room.last_seq = stored.seq
        room.last_message_at_ms = room.active_at_ms = stored.created_at_ms
        decision.keep_room(room)


def _deliver_message(decision: Decision, message: Message) -> None:
    room = decision.state.room
    frame_bytes = message_frame(message)
    if room is not None and room.direct is not None:
        for user_id in room.direct:
            decision.deliver(user_channel(user_id), DeliveryClass.LOSSLESS, frame_bytes, message.seq, room.id)
    else:
        decision.deliver(room_channel(message.room_id), DeliveryClass.LOSSLESS, frame_bytes, message.seq)


def _deliver_read_mark(decision: Decision, room: Room, mark: ReadMark, session_id: str) -> None:
    frame_bytes = frame("chat:read", mark)
    decision.deliver(user_channel(mark.user_id), DeliveryClass.TRANSIENT, frame_bytes, key=session_id)
    if room.direct is not None:
        for user_id in set(room.direct) - {mark.user_id}:
            decision.deliver(user_channel(user_id), DeliveryClass.TRANSIENT, frame_bytes)
    elif room.member_count <= READ_BROADCAST_MEMBERS_MAX:
        decision.deliver(room_channel(room.id), DeliveryClass.TRANSIENT, frame_bytes, key=mark.user_id)
