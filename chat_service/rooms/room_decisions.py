"""Decisions on rooms and members: create, update, delete, join, leave, add, remove. Pure.

Each function decides one command: it returns the reply and raises Refusal.
"""

from chat_service.rooms.decision import Decision
from chat_service.rooms.log import EntryKind, LogEntry, member_of
from chat_service.rooms.room import Room, RoomType, member_view
from shared.commands.chat import AddMember, CreateRoom, DeleteRoom, Gone, RemoveMember, UpdateRoom
from shared.commands.chat_views import MemberView, RoomView
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import UserProfile


def create(decision: Decision, command: CreateRoom) -> RoomView:
    """Create the room with its first members."""
    if decision.state.room is None:
        decision.check_limits()
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
        decision.change_settings()
        decision.add_member(room, caller, decision.pending.profile)
        for user_id in command.member_ids:
            if decision.joined_member(user_id) is None:
                decision.add_member(room, user_id, UserProfile())
        decision.record(EntryKind.CREATED)
    return decision.view(decision.visible_room())


def update(decision: Decision, command: UpdateRoom) -> RoomView:
    """Change the given fields. When the room stops being public, gateways recheck its subscribers."""
    room = decision.managed_room()
    was_public = room.type is RoomType.PUBLIC
    room.name = room.name if command.name is None else command.name
    room.description = room.description if command.description is None else command.description
    room.type = room.type if command.type is None else RoomType(command.type)
    decision.change_settings(ends_public=was_public and room.type is not RoomType.PUBLIC)
    decision.record(EntryKind.UPDATED)
    return decision.view(room)


def delete(decision: Decision) -> Gone:
    """Turn the room into a tombstone, which the purge removes later."""
    room = decision.managed_room()
    room.deleted = True
    decision.change_settings()
    decision.record(EntryKind.DELETED)
    return Gone(id=room.id)


def join(decision: Decision) -> RoomView:
    """Make the caller a member of a public room, or of one that they were invited to or created."""
    room = decision.state.room
    member = decision.state.members.get(decision.caller.user_id)
    invited = member is not None or decision.is_creator(room)
    if room is None or room.deleted or not (room.type is RoomType.PUBLIC or invited):
        raise Refusal.not_found("room")
    if member is None or not member.is_joined:
        decision.check_limits()
        decision.add_member(room, decision.caller.user_id, decision.pending.profile)
        decision.record(EntryKind.JOINED)
    return decision.view(room)


def leave(decision: Decision) -> RoomView:
    """End the caller's membership. A user who leaves a private or group room may come back.

    Leaving a public room keeps no invitation: if the room becomes private later, the user has no access.
    """
    room = decision.visible_or_left_room()
    if room.direct is not None:
        raise Refusal(ErrorCode.FORBIDDEN, "a direct room cannot be left")
    member = decision.joined_member(decision.caller.user_id)
    if member is not None:
        decision.check_limits()
        decision.end_membership(room, member, stays_invited=room.type is not RoomType.PUBLIC)
        decision.record(EntryKind.LEFT)
    return decision.view(room)


def add(decision: Decision, command: AddMember) -> MemberView:
    """Make another user a member."""
    room = decision.managed_room()
    member = decision.joined_member(command.user_id)
    if member is None:
        decision.check_limits()
        member = decision.add_member(room, command.user_id, UserProfile())
        decision.record(EntryKind.ADDED)
    return member_view(member, decision.state.presence[command.user_id])


def remove(decision: Decision, command: RemoveMember) -> Gone:
    """Remove another user's membership or invitation."""
    room = decision.managed_room()
    member = decision.state.members.get(command.user_id)
    if member is None:
        raise Refusal.not_found("member")
    decision.end_membership(room, member, stays_invited=False)
    decision.record(EntryKind.REMOVED)
    return Gone(id=command.user_id)


# Answers to commands that have an entry already ---------------------------------------------------------------------


def view_after(decision: Decision) -> RoomView:
    """Return the room as it is now. Raises NOT_FOUND if the caller may no longer see it."""
    return decision.view(decision.visible_or_left_room())


def member_after(decision: Decision, entry: LogEntry, command: AddMember) -> MemberView:
    """Return the member that the entry added."""
    member = decision.state.members.get(command.user_id) or member_of(entry.room_id, entry.members[0])
    if member is None:
        raise Refusal.not_found("member")
    return member_view(member, decision.state.presence[command.user_id])


def gone_after(command: DeleteRoom | RemoveMember) -> Gone:
    """Return the id that the entry deleted or removed."""
    return Gone(id=command.user_id if isinstance(command, RemoveMember) else command.room_id)
