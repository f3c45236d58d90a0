"""Costs of room commands, and the quota that they reserve. Pure.

A command whose effect is already in place is free. If earlier commands of the batch decide whether a command joins or
leaves, the command is charged for it; `settlement` refunds it if it did not happen.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chat_service.partitions.rates import MESSAGE, Cost, Costs, Rate
from chat_service.partitions.reservations import Quota, Reservation
from chat_service.rooms.decision import RoomState
from chat_service.rooms.room import Room, RoomType, is_creator
from shared.commands.chat import (
    AddMember,
    AnyRoomCommand,
    CreateRoom,
    DeleteMessage,
    EditMessage,
    JoinRoom,
    LeaveRoom,
    PinMessage,
    React,
    RemoveMember,
    SendDirect,
    SendMessage,
    UpdateRoom,
)
from shared.commands.command import Caller

JOIN = Cost(Rate.JOINS)
CHANGE: Costs = (Cost(Rate.CHANGES),)
LOOK_UPS_MAX = 40  # pairs of users in one batch: two rounds of reads, for which the rooms of its partition wait
LOOK_UPS_OF_CALLER_MAX = 20  # so that no caller uses up all look-ups


@dataclass(slots=True)
class BatchCosts:
    """The costs of a batch: `costs[i]` belongs to command i; `reservations` are by index.

    `costs[i]` is empty for a command that is free, and for a refused one whose charge, if any, must not be refunded.
    `first_direct` are the indexes of commands that start a direct room: they may be messages to strangers.
    """

    costs: list[Costs] = field(default_factory=list)
    reservations: dict[int, tuple[Reservation, ...]] = field(default_factory=dict)
    first_direct: list[int] = field(default_factory=list)


def costs_of(commands: Sequence[AnyRoomCommand], states: Mapping[str, RoomState]) -> BatchCosts:
    """Return the costs of a batch. Commands of one batch that would make the same join share one charge."""
    batch = BatchCosts()
    changing = _Memberships(states)
    opened: set[str] = set()  # rooms that an earlier command may make public
    passed_on: set[str] = set()  # rooms to which an earlier command may give another creator
    for index, command in enumerate(commands):
        state, caller = states[command.room_id], command.caller
        if type(command) is SendMessage and changing.is_surely_member(command.room_id, caller.user_id):
            batch.costs.append(MESSAGE)  # HOT: almost every command
            continue
        costs: Costs = ()
        joining: tuple[str, ...] = ()
        manages = command.room_id in passed_on or _may_manage(state.room, caller)
        if state.room is not None and _may_pass_on(state.room, command):
            passed_on.add(command.room_id)
        match command:
            case SendMessage():
                costs = MESSAGE
                if command.room_id in opened or _is_open(state):
                    costs, joining = (*MESSAGE, changing.join(command)), (caller.user_id,)
            case React():
                costs = CHANGE
                if not command.is_removal and _may_join(changing, state, command, opened):
                    costs, joining = (*CHANGE, changing.join(command)), (caller.user_id,)
            case EditMessage() | DeleteMessage() | PinMessage():
                costs = CHANGE
            case SendDirect():
                costs = MESSAGE
                if state.room is None and not caller.pays_only_message_rate:
                    batch.first_direct.append(index)
            case CreateRoom() if state.room is None:
                invited = set(command.member_ids) - {caller.user_id}
                costs = (Cost(Rate.CREATIONS), *([Cost(Rate.INVITATIONS, len(invited))] if invited else ()))
                joining = (caller.user_id, *invited)
            case JoinRoom() if not changing.is_surely_member(command.room_id, caller.user_id):
                changing.join(command)
                costs, joining = (JOIN,), () if state.room is None or state.room.deleted else (caller.user_id,)
            case LeaveRoom() if changing.may_be_member(command.room_id, caller.user_id):
                changing.leave(command.room_id, caller.user_id)
                costs = (JOIN,)
            case AddMember() if not changing.is_surely_member(command.room_id, command.user_id):
                costs, joining = (Cost(Rate.INVITATIONS),), (command.user_id,)
                if manages:
                    changing.add(command.room_id, command.user_id)
            case RemoveMember() if manages:
                changing.leave(command.room_id, command.user_id)
            case UpdateRoom(type=RoomType.PUBLIC) if manages:
                opened.add(command.room_id)
        if caller.pays_only_message_rate:
            costs = tuple(cost for cost in costs if cost.rate is Rate.MESSAGES)
        batch.costs.append(costs)
        if joining:
            batch.reservations[index] = _reservations(command, joining)
    return batch


def pairs_to_look_up(messages: Iterable[SendDirect]) -> dict[str, SendDirect]:
    """Return, by direct room, a message between its users, who may be strangers.

    Bound: 40 rooms, at most 20 per caller. The rest is refused as `UNAVAILABLE`.
    """
    chosen: dict[str, SendDirect] = {}
    of_caller: Counter[str] = Counter()
    for message in messages:
        caller = message.caller.user_id
        is_within = len(chosen) < LOOK_UPS_MAX and of_caller[caller] < LOOK_UPS_OF_CALLER_MAX
        if is_within and message.room_id not in chosen:
            chosen[message.room_id] = message
            of_caller[caller] += 1
    return chosen


class _Memberships:
    """Memberships as the earlier commands of a batch may have changed them; any command may still be refused."""

    def __init__(self, states: Mapping[str, RoomState]) -> None:
        self._states = states
        # Memberships that an earlier command may change, with the id under which commands that make the same join share
        # one charge; "" if the next join begins a new charge.
        self._changing: dict[tuple[str, str], str] = {}

    def is_surely_member(self, room_id: str, user_id: str) -> bool:
        """Return whether the user is a member regardless of the outcome of the earlier commands."""
        return self._was_member(room_id, user_id) and not (self._changing and (room_id, user_id) in self._changing)

    def may_be_member(self, room_id: str, user_id: str) -> bool:
        """Return whether the user is a member now, or may be after the earlier commands."""
        return (room_id, user_id) in self._changing or self._was_member(room_id, user_id)

    def join(self, command: SendMessage | React | JoinRoom) -> Cost:
        """Note that a command may make its caller a member. Return the cost, shared by all that make the same join."""
        key = command.room_id, command.caller.user_id
        self._changing[key] = self._changing.get(key) or command.id
        return Cost(Rate.JOINS, 1, self._changing[key])

    def add(self, room_id: str, user_id: str) -> None:
        """Note that a command may make another user a member."""
        self._changing.setdefault((room_id, user_id), "")

    def leave(self, room_id: str, user_id: str) -> None:
        """Note that a command may end a membership: a later join is charged again."""
        self._changing[room_id, user_id] = ""

    def _was_member(self, room_id: str, user_id: str) -> bool:
        member = self._states[room_id].members.get(user_id)
        return member is not None and member.is_joined


def _reservations(command: AnyRoomCommand, joining: tuple[str, ...]) -> tuple[Reservation, ...]:
    """Return the reservations of a command: one per user whose quota it would use."""
    joined = tuple(Reservation(Quota.JOINED, user_id, command.room_id) for user_id in joining)
    if isinstance(command, CreateRoom):
        return (Reservation(Quota.CREATED, command.caller.user_id, command.room_id), *joined)
    return joined


def _may_join(changing: _Memberships, state: RoomState, command: React, opened: set[str]) -> bool:
    """Return whether a reaction may make its caller a member."""
    if changing.is_surely_member(command.room_id, command.caller.user_id):
        return False
    return command.room_id in opened or _is_open(state)


def _is_open(state: RoomState) -> bool:
    """Return whether anybody may join the room."""
    room = state.room
    return room is not None and room.type is RoomType.PUBLIC and not room.deleted


def _may_pass_on(room: Room, command: AnyRoomCommand) -> bool:
    """Return whether a command may give the room another creator."""
    match command:
        case LeaveRoom():
            return is_creator(room, command.caller.user_id)
        case RemoveMember():
            return is_creator(room, command.user_id)
        case AddMember(role="creator"):
            return True
        case _:
            return room.member_count == 0  # the first user to join becomes the creator


def _may_manage(room: Room | None, caller: Caller) -> bool:
    """Return whether the caller may change the room's members, if it is not deleted before."""
    return room is not None and room.direct is None and (caller.is_admin or is_creator(room, caller.user_id))
