"""What room commands cost their callers, and the rooms that they add to what a bound counts. Pure.

A command that its room's state shows to be in effect already costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chat_service.partitions.rates import MESSAGE, Cost, Costs, Rate
from chat_service.partitions.reservations import Bound, Reservation
from chat_service.rooms.decision import RoomState
from chat_service.rooms.room import RoomType
from shared.commands.chat import (
    AddMember,
    AnyRoomCommand,
    CreateRoom,
    JoinRoom,
    LeaveRoom,
    SendDirect,
    SendMessage,
)

JOIN = Cost(Rate.JOINS)
STRANGER = Cost(Rate.STRANGERS)


@dataclass(slots=True)
class BatchCosts:
    """What a batch costs and adds: `costs[i]` belongs to command i; `reservations` are by index.

    `first_direct` are the indexes of commands that start a direct room: they may be messages to strangers.
    """

    costs: list[Costs] = field(default_factory=list)
    reservations: dict[int, tuple[Reservation, ...]] = field(default_factory=dict)
    first_direct: list[int] = field(default_factory=list)


def costs_of(commands: Sequence[AnyRoomCommand], states: Mapping[str, RoomState]) -> BatchCosts:
    """Return the costs of a batch. A user who joins a room by several messages of it is charged for one join."""
    batch = BatchCosts()
    joined: set[tuple[str, str]] = set()
    for index, command in enumerate(commands):
        state, caller = states[command.room_id], command.caller
        if type(command) is SendMessage and _is_member(state, caller.user_id):  # HOT: almost every command
            batch.costs.append(MESSAGE)
            continue
        costs: Costs = ()
        joining: tuple[str, ...] = ()
        match command:
            case SendMessage():
                costs = MESSAGE
                if _is_open(state) and (command.room_id, caller.user_id) not in joined:
                    costs, joining = (*MESSAGE, JOIN), (caller.user_id,)
            case SendDirect():
                costs = MESSAGE
                if state.room is None and not caller.is_exempt_from_rates:
                    batch.first_direct.append(index)
            case CreateRoom() if state.room is None:
                invited = set(command.member_ids) - {caller.user_id}
                costs = (Cost(Rate.CREATIONS), *([Cost(Rate.INVITATIONS, len(invited))] if invited else ()))
                joining = (caller.user_id, *invited)
            case JoinRoom() if not _is_member(state, caller.user_id):
                costs, joining = (JOIN,), () if state.room is None or state.room.deleted else (caller.user_id,)
            case LeaveRoom() if _is_member(state, caller.user_id):
                costs = (JOIN,)
            case AddMember() if not _is_member(state, command.user_id):
                costs, joining = (Cost(Rate.INVITATIONS),), (command.user_id,)
        if caller.is_exempt_from_rates:
            costs = tuple(cost for cost in costs if cost.rate is Rate.MESSAGES)
        batch.costs.append(costs)
        if joining:
            joined.update((command.room_id, user_id) for user_id in joining)
            batch.reservations[index] = _reservations(command, joining)
    return batch


def _reservations(command: AnyRoomCommand, joining: tuple[str, ...]) -> tuple[Reservation, ...]:
    """Return the rooms that a command adds to what its caller has created and these users are members of."""
    joined = tuple(Reservation(Bound.JOINED, user_id, command.room_id) for user_id in joining)
    if isinstance(command, CreateRoom):
        return (Reservation(Bound.CREATED, command.caller.user_id, command.room_id), *joined)
    return joined


def _is_open(state: RoomState) -> bool:
    """Return whether anybody may join the room."""
    room = state.room
    return room is not None and room.type is RoomType.PUBLIC and not room.deleted


def _is_member(state: RoomState, user_id: str) -> bool:
    member = state.members.get(user_id)
    return member is not None and member.is_joined
