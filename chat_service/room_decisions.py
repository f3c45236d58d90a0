"""Decisions on rooms and their members: create, update, delete, join, leave, add, remove. Pure.

Each function decides one command: it returns the reply and raises Refusal. All are idempotent.
"""

from chat_service.decision import Decision
from chat_service.rooms import Room, RoomType, member_view
from shared.bus.delivery import ControlKind
from shared.commands.chat import AddMember, CreateRoom, Gone, MemberView, RemoveMember, RoomView, UpdateRoom
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import ChatroomUpdatedData, UserProfile


def create(decision: Decision, command: CreateRoom) -> RoomView:
    """Make the room with its first members, unless an earlier try did."""
    if decision.state.room is None:
        caller = decision.caller.user_id
        room = decision.state.room = Room(
            id=decision.room_id,
            name=command.name,
            description=command.description,
            type=RoomType(command.type),
            created_by=caller,
            created_at_ms=decision.now_ms,
            active_at_ms=decision.now_ms,
        )
        decision.add_member(room, caller, decision.pending.profile, announce=False)
        for user_id in command.member_ids:
            if decision.active_member(user_id) is None:
                decision.add_member(room, user_id, UserProfile(), announce=False)
    return decision.view(decision.visible_room())


def update(decision: Decision, command: UpdateRoom) -> RoomView:
    """Change the given fields. When the room stops being public, gateways recheck its subscribers."""
    room = decision.managed_room()
    was_public = room.type is RoomType.PUBLIC
    room.name = room.name if command.name is None else command.name
    room.description = room.description if command.description is None else command.description
    room.type = room.type if command.type is None else RoomType(command.type)
    decision.keep_room(room)
    if room.type is not RoomType.PUBLIC and (was_public or decision.pending.redelivered):
        decision.control(ControlKind.RECHECK)
    decision.announce(
        "chatroom:updated",
        ChatroomUpdatedData(chatroom_id=room.id, name=room.name, description=room.description, type=room.type),
    )
    return decision.view(room)


def delete(decision: Decision) -> Gone:
    """Turn the room into a tombstone, which the purge removes later."""
    room = decision.state.room
    if decision.pending.redelivered and room is not None and room.deleted:
        decision.control(ControlKind.ROOM_DELETED)
        return Gone(id=room.id)
    room = decision.managed_room()
    room.deleted = True
    decision.keep_room(room)
    decision.control(ControlKind.ROOM_DELETED)
    return Gone(id=room.id)


def join(decision: Decision) -> RoomView:
    """Make the caller a member of a public room, or of one that they were invited to, created or left."""
    room = decision.state.room
    member = decision.state.members.get(decision.caller.user_id)
    invited = member is not None or decision.is_creator(room)
    if room is None or room.deleted or not (room.type is RoomType.PUBLIC or invited):
        raise Refusal.not_found("room")
    if member is None or not member.active:
        decision.add_member(room, decision.caller.user_id, decision.pending.profile, announce=True)
    return decision.view(room)


def leave(decision: Decision) -> RoomView:
    """End the caller's membership; they stay invited."""
    room = decision.visible_or_left_room()
    if room.direct is not None:
        raise Refusal(ErrorCode.FORBIDDEN, "a direct room cannot be left")
    member = decision.active_member(decision.caller.user_id)
    if member is not None:
        member.active = False
        room.member_count -= 1
        decision.state.active_now -= decision.is_online(member.user_id)
        decision.keep_room(room)
        decision.keep_member(member)
    if member is not None or decision.pending.redelivered:
        decision.announce_left(room, decision.caller.user_id, evict=room.type is not RoomType.PUBLIC)
    return decision.view(room)


def add(decision: Decision, command: AddMember) -> MemberView:
    """Make another user a member."""
    room = decision.managed_room()
    member = decision.active_member(command.user_id)
    if member is None:
        member = decision.add_member(room, command.user_id, UserProfile(), announce=True)
    return member_view(member, decision.state.seen[command.user_id])


def remove(decision: Decision, command: RemoveMember) -> Gone:
    """Remove another user's membership, including the invitation of one who left."""
    room = decision.managed_room()
    member = decision.state.members.get(command.user_id)
    if member is None and not decision.pending.redelivered:
        raise Refusal.not_found("member")
    if member is not None:
        if member.active:
            room.member_count -= 1
            decision.state.active_now -= decision.is_online(member.user_id)
        decision.keep_room(room)
        decision.state.members[command.user_id] = None
        decision.changes.members[room.id, command.user_id] = None
    decision.announce_left(room, command.user_id, evict=True)
    return Gone(id=command.user_id)
