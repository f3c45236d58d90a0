"""Decisions on members: join, leave, add, role, remove. Pure.

Each function decides one command: it returns the reply, or raises Refusal.
"""

from chat_service.rooms.decision import Decision
from chat_service.rooms.log import EntryKind, LogEntry, member_of
from chat_service.rooms.room import Member, Role, Room, RoomType, is_creator, member_view
from shared.commands.chat import AddMember, Gone, RemoveMember
from shared.commands.chat_views import MemberView, RoomView
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import UserProfile


def join(decision: Decision) -> RoomView:
    """Make the caller a member of a public room, or of a room that they were invited to or created."""
    room = decision.state.room
    member = decision.state.members.get(decision.caller.user_id)
    invited = member is not None or (room is not None and is_creator(room, decision.caller.user_id))
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
    """Make another user a member, with a role if given, or give a member another role: one entry in either case.

    Assigning `creator` transfers the room. The current creator's role cannot be changed directly, since a room must
    have exactly one creator.
    """
    room = decision.managed_room()
    member = decision.joined_member(command.user_id)
    if member is None:
        decision.check_limits()
        role = Role.MODERATOR if command.role == "moderator" else Role.MEMBER
        member = decision.add_member(room, command.user_id, UserProfile(), role)
        if command.role == "creator":
            decision.make_creator(room, member)
        decision.change_settings()  # the invitation shows name and type of the room
        decision.record(EntryKind.ADDED)
    elif command.role is not None and member.role != command.role:
        _change_role(decision, room, member, Role(command.role))
        decision.record(EntryKind.ROLE)
    return member_view(member, decision.state.presence[command.user_id])


def _change_role(decision: Decision, room: Room, member: Member, role: Role) -> None:
    if role is Role.CREATOR:
        decision.make_creator(room, member)
    elif member.role is Role.CREATOR:
        raise Refusal.invalid("role", "hand the room over before changing the creator's role")
    else:
        decision.set_role(member, role)


def remove(decision: Decision, command: RemoveMember) -> Gone:
    """Remove another user's membership or invitation."""
    room = decision.managed_room()
    member = decision.state.members.get(command.user_id)
    if member is None:
        raise Refusal.not_found("member")
    decision.end_membership(room, member, stays_invited=False)
    if is_creator(room, command.user_id):  # there is no heir
        decision.set_creator(room, None)
    decision.record(EntryKind.REMOVED)
    return Gone(id=command.user_id)


def member_after(decision: Decision, entry: LogEntry, command: AddMember) -> MemberView:
    """Return the member that the entry added."""
    member = decision.state.members.get(command.user_id) or member_of(entry.room_id, entry.members[0])
    if member is None:
        raise Refusal.not_found("member")
    return member_view(member, decision.state.presence[command.user_id])
