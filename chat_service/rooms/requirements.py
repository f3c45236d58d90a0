"""The data that each room command needs loaded before it can be decided. Pure.

One row of `_TABLE` stands for one command. The room itself is always loaded, and so are the memberships of `users_of`,
unless `open_in_public` applies; a row declares the rest. `heirs_needed` and `creator_needed` depend on the room too.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from chat_service.rooms.room import Room
from shared.commands.chat import (
    AddMember,
    AnyRoomCommand,
    CreateRoom,
    DeleteMessage,
    DeleteRoom,
    EditMessage,
    JoinRoom,
    LeaveRoom,
    MarkRead,
    PinMessage,
    React,
    RemoveMember,
    RoomCommand,
    SendDirect,
    SendMessage,
    SetTyping,
    SubscribeRoom,
    UpdateRoom,
)
from shared.protocol.message_parts import MessageExtras


class Requirements(NamedTuple):
    """The data that one command needs beyond the room and the memberships of its users.

    `profile`: the caller's profile, which deliveries show. `active_now`: the number of members online, which the answer
    shows. `presence`: the presence of the users that the command names, because it changes that number.
    `makes_entry`: the decision may append to the log. `changes_type`: the room may stop being public.
    `open_in_public`: no membership matters while the room is public, so none is loaded. `pins`: those of the room.
    """

    profile: bool = False
    active_now: bool = False
    presence: bool = False
    makes_entry: bool = False
    changes_type: bool = False
    open_in_public: bool = False
    pins: bool = False


_SEND = Requirements(profile=True, makes_entry=True)
_MEMBERSHIP = Requirements(active_now=True, presence=True, makes_entry=True)

_TABLE: Mapping[type[RoomCommand], Requirements] = {
    SendMessage: _SEND,
    SendDirect: _SEND,
    EditMessage: Requirements(makes_entry=True),
    DeleteMessage: Requirements(makes_entry=True),
    React: _SEND,
    PinMessage: Requirements(makes_entry=True, pins=True),
    CreateRoom: _MEMBERSHIP._replace(profile=True),
    UpdateRoom: Requirements(active_now=True, makes_entry=True, changes_type=True),
    DeleteRoom: Requirements(makes_entry=True),
    JoinRoom: _MEMBERSHIP._replace(profile=True),
    LeaveRoom: _MEMBERSHIP,
    AddMember: _MEMBERSHIP,
    RemoveMember: _MEMBERSHIP,
    MarkRead: Requirements(),
    SetTyping: Requirements(open_in_public=True),
    SubscribeRoom: Requirements(active_now=True, open_in_public=True),
}


def requirements_of(command: AnyRoomCommand) -> Requirements:
    """Return the data that the command needs loaded."""
    return _TABLE[type(command)]


def users_of(command: AnyRoomCommand) -> tuple[str, ...]:
    """Return the users whose memberships a decision on this command reads: its caller first."""
    caller = command.caller.user_id
    match command:
        case CreateRoom():
            return (caller, *command.member_ids)
        case AddMember() | RemoveMember():
            return (caller, command.user_id)
        case SendDirect():
            return (caller, command.to_user_id, *_mentions_of(command.extras))
        case SendMessage():
            return (caller, *_mentions_of(command.extras))
        case EditMessage():
            return (caller, *(command.mentions or ()))
        case _:
            return (caller,)


def messages_of(command: AnyRoomCommand) -> tuple[str, ...]:
    """Return the ids of the stored messages that a decision on this command reads."""
    match command:
        case SendMessage(extras=MessageExtras(reply_to=str(message_id))):
            return (message_id,)
        case SendDirect(extras=MessageExtras(reply_to=str(message_id))):
            return (message_id,)
        case EditMessage() | DeleteMessage() | React() | PinMessage():
            return (command.message_id,)
        case _:
            return ()


def _mentions_of(extras: MessageExtras | None) -> tuple[str, ...]:
    return () if extras is None else extras.mentions


def creator_needed(command: AnyRoomCommand, room: Room) -> str | None:
    """Return the creator whose membership a decision on this command reads, because it hands their room over."""
    return room.creator_id if isinstance(command, AddMember) and command.role == "creator" else None


def heirs_needed(commands: Iterable[AnyRoomCommand], room: Room) -> int:
    """Return the number of moderators and members of longest standing to load, to find the creator's heir.

    Each user named in the batch may be ineligible by then, so one candidate more than named users suffices. Bound: two
    users for each of the 500 commands of a batch.
    """
    changes = [command for command in commands if isinstance(command, AddMember | LeaveRoom | RemoveMember)]
    leaving = {user_id for command in changes if (user_id := _leaving(command)) is not None}
    hands_over = any(isinstance(command, AddMember) and command.role == "creator" for command in changes)
    if room.creator_id not in leaving and not (hands_over and leaving):
        return 0
    return 1 + len({user_id for command in changes for user_id in users_of(command)})


def _leaving(command: AnyRoomCommand) -> str | None:
    match command:
        case LeaveRoom():
            return command.caller.user_id
        case RemoveMember():
            return command.user_id
        case _:
            return None
