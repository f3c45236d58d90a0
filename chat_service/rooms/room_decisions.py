"""Decisions on rooms: create, update, delete. Pure.

Each function decides one command: it returns the reply, or raises Refusal.
"""

from chat_service.rooms.decision import Decision
from chat_service.rooms.log import EntryKind
from chat_service.rooms.room import Room, RoomType
from shared.commands.chat import CreateRoom, DeleteRoom, Gone, RemoveMember, UpdateRoom
from shared.commands.chat_views import RoomView
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
            creator_id=caller,
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


# Answers to commands that have an entry already ---------------------------------------------------------------------


def view_after(decision: Decision) -> RoomView:
    """Return the room as it is now. Raises NOT_FOUND if the caller may no longer see it."""
    return decision.view(decision.visible_or_left_room())


def gone_after(command: DeleteRoom | RemoveMember) -> Gone:
    """Return the id that the entry deleted or removed."""
    return Gone(id=command.user_id if isinstance(command, RemoveMember) else command.room_id)
