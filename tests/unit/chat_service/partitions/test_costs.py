"""The costs of each command, and the rooms that it reserves."""

import itertools
from typing import Any

import pytest

from chat_service.partitions.costs import LOOK_UPS_MAX, LOOK_UPS_OF_CALLER_MAX, costs_of, pairs_to_look_up
from chat_service.partitions.rates import MESSAGE, MINUTE_MS, Cost, Limit, Rate, RateWindows
from chat_service.partitions.reservations import Quota, Reservation
from chat_service.rooms.decision import RoomState
from chat_service.rooms.room import Member, Role, Room, RoomType
from shared.commands.chat import (
    AddMember,
    AnyRoomCommand,
    CreateRoom,
    JoinRoom,
    LeaveRoom,
    MarkRead,
    RemoveMember,
    SendDirect,
    SendMessage,
    SetTyping,
    SubscribeRoom,
    UpdateRoom,
)
from shared.commands.command import Caller
from shared.protocol.server_frames import UserProfile

ROOM = "room_1"
NOBODY = UserProfile()
JOIN = Cost(Rate.JOINS)
numbers = itertools.count(1)


def command(kind: type[Any], by: str | Caller = "ann", room_id: str = ROOM, **fields: Any) -> Any:
    caller = by if isinstance(by, Caller) else Caller(user_id=by)
    return kind(id=f"cmd_{next(numbers)}", expires_at_monotonic_ms=0, caller=caller, room_id=room_id, **fields)


def send(by: str | Caller = "ann") -> Any:
    return command(SendMessage, by, message_id="msg_1", message="hi")


def create(*members: str, by: str | Caller = "ann", room_id: str = ROOM) -> Any:
    return command(CreateRoom, by, room_id, name="Room", description="", type="group", member_ids=members)


def direct(by: str | Caller = "ann") -> Any:
    return command(SendDirect, by, message_id="msg_1", to_user_id="ben", message="hi")


def state(*members: str, kind: RoomType = RoomType.PUBLIC, deleted: bool = False) -> RoomState:
    room = Room(
        id=ROOM,
        name="",
        description="",
        type=kind,
        created_by="ann",
        creator_id="ann",
        created_at_ms=0,
        active_at_ms=0,
        deleted=deleted,
    )
    joined: dict[str, Member | None] = {
        user_id: Member(
            room_id=ROOM, user_id=user_id, role=Role.MEMBER, joined_at_ms=0, role_since_ms=0, read_seq=0, profile=NOBODY
        )
        for user_id in members
    }
    return RoomState(room, joined)


def shared(one: AnyRoomCommand) -> Cost:
    return Cost(Rate.JOINS, 1, one.id)


def cost_of(one: AnyRoomCommand, before: RoomState) -> tuple[tuple[Cost, ...], tuple[str, ...]]:
    batch = costs_of([one], {ROOM: before})
    return batch.costs[0], tuple(one.user_id for one in batch.reservations.get(0, ()) if one.quota is Quota.JOINED)


def test_messages_of_members_cost_a_message() -> None:
    assert cost_of(send(), state("ann")) == (MESSAGE, ())
    assert cost_of(send(), state("ben", kind=RoomType.PRIVATE)) == (MESSAGE, ()), "it will be refused"
    assert cost_of(send(), state(deleted=True)) == (MESSAGE, ())
    assert cost_of(send(), RoomState(None)) == (MESSAGE, ())


def test_first_message_to_a_public_room_costs_a_join_too() -> None:
    one = send()
    assert cost_of(one, state("ben")) == ((*MESSAGE, shared(one)), ("ann",))


def test_first_messages_of_a_batch_share_one_join_and_are_refused_together() -> None:
    """A later one must not be free because an earlier one is refused."""
    commands = [send(), send(), send("cat"), command(JoinRoom)]
    batch = costs_of(commands, {ROOM: state()})
    assert batch.costs == [
        (*MESSAGE, shared(commands[0])),
        (*MESSAGE, shared(commands[0])),
        (*MESSAGE, shared(commands[2])),
        (JOIN,),
    ]
    assert batch.reservations.keys() == {0, 1, 2, 3}
    windows = RateWindows({rate: Limit(0 if rate is Rate.JOINS else 9, MINUTE_MS) for rate in Rate})
    refused = [
        windows.charge(one.caller.user_id, one.id, costs, 0) for one, costs in zip(commands, batch.costs, strict=True)
    ]
    assert all(refused)


def test_joins_and_leaves_of_one_batch_all_cost() -> None:
    commands = [command(LeaveRoom), command(JoinRoom), command(LeaveRoom), send()]
    for before in (state("ann"), state()):
        batch = costs_of([command(JoinRoom), *commands], {ROOM: before})
        assert [costs for costs in batch.costs[1:4]] == [(JOIN,)] * 3
        assert batch.costs[4] == (*MESSAGE, shared(commands[3]))


def test_message_after_a_removal_in_its_batch_costs_a_join() -> None:
    last = send("ben")
    batch = costs_of([command(RemoveMember, user_id="ben"), last], {ROOM: state("ann", "ben")})
    assert batch.costs == [(), (*MESSAGE, shared(last))]


def test_second_leave_of_a_batch_costs_too() -> None:
    """The first one may be refused, and then the second one takes effect."""
    assert costs_of([command(LeaveRoom), command(LeaveRoom)], {ROOM: state("ann")}).costs == [(JOIN,), (JOIN,)]


def test_forbidden_removal_changes_nothing_for_its_target() -> None:
    removal, leave, last = command(RemoveMember, "cat", user_id="ben"), command(LeaveRoom, "ben"), send("ben")
    assert costs_of([removal, last], {ROOM: state("ben", "cat")}).costs == [(), MESSAGE]
    assert costs_of([removal, leave], {ROOM: state("ben", "cat")}).costs == [(), (JOIN,)]
    batch = costs_of([removal, last], {ROOM: state("ben", "cat")})
    assert batch.reservations == {}


def test_leave_costs_after_a_removal_or_an_addition_in_its_batch() -> None:
    leave = command(LeaveRoom, "ben")
    for before, earlier in (
        (state("ann", "ben"), command(RemoveMember, user_id="ben")),
        (state("ann"), command(AddMember, user_id="ben")),
    ):
        assert costs_of([earlier, leave], {ROOM: before}).costs[1] == (JOIN,)


def test_first_message_costs_a_join_where_an_earlier_command_opens_the_room() -> None:
    last = send("ben")
    for by, costs in (("ann", (*MESSAGE, shared(last))), ("cat", MESSAGE)):
        before = state("ann", kind=RoomType.PRIVATE)
        assert costs_of([command(UpdateRoom, by, type="public"), last], {ROOM: before}).costs[1] == costs


def test_pair_is_looked_up_once_and_a_batch_makes_a_bounded_number_of_look_ups() -> None:
    def first(by: str, number: int) -> Any:
        fields = {"message_id": "msg", "to_user_id": "ben", "message": "hi"}
        return command(SendDirect, by, f"room_{number}", **fields)

    same = [first("ann", 0), first("ben", 0), first("ann", 0)]
    assert pairs_to_look_up(same) == {"room_0": same[0]}
    of_ann = [first("ann", number) for number in range(500)]
    assert len(pairs_to_look_up(of_ann)) == LOOK_UPS_OF_CALLER_MAX
    assert pairs_to_look_up([*of_ann, first("ben", 999)])["room_999"].caller.user_id == "ben"
    assert len(pairs_to_look_up([first(f"user_{number}", number) for number in range(500)])) == LOOK_UPS_MAX


def test_creation_costs_an_invitation_for_each_other_member() -> None:
    costs, joining = cost_of(create("ben", "cat", "ann", "ben"), RoomState(None))
    assert costs == (Cost(Rate.CREATIONS), Cost(Rate.INVITATIONS, 2))
    assert (joining[0], set(joining[1:])) == ("ann", {"ben", "cat"})
    assert cost_of(create(), RoomState(None)) == ((Cost(Rate.CREATIONS),), ("ann",))
    assert cost_of(create("ben"), state("ann")) == ((), ()), "it exists already"


@pytest.mark.parametrize(
    ("one", "before", "costs", "joining"),
    [
        (command(JoinRoom), state("ben"), (JOIN,), ("ann",)),
        (command(JoinRoom), state("ann"), (), ()),
        (command(LeaveRoom), state("ann"), (JOIN,), ()),
        (command(LeaveRoom), state("ben"), (), ()),
        (command(AddMember, user_id="ben"), state("ann"), (Cost(Rate.INVITATIONS),), ("ben",)),
        (command(AddMember, user_id="ben"), state("ann", "ben"), (), ()),
        (command(RemoveMember, user_id="ben"), state("ann", "ben"), (), ()),
        (command(UpdateRoom), state("ann"), (), ()),
        (command(MarkRead, seq=1), state("ann"), (), ()),
        (command(SetTyping, is_typing=True), state("ann"), (), ()),
        (command(SubscribeRoom), state("ben"), (), ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_cost_depends_on_what_the_command_would_change(
    one: AnyRoomCommand, before: RoomState, costs: tuple[Cost, ...], joining: tuple[str, ...]
) -> None:
    assert cost_of(one, before) == (costs, joining)


def test_only_the_first_direct_message_may_be_to_a_stranger() -> None:
    batch = costs_of([direct(), direct(Caller(user_id="admin", is_admin=True))], {ROOM: RoomState(None)})
    assert (batch.costs, batch.first_direct) == ([MESSAGE, MESSAGE], [0])
    assert costs_of([direct()], {ROOM: state("ann", kind=RoomType.PRIVATE)}).first_direct == []


@pytest.mark.parametrize("caller", [Caller(user_id="a", is_admin=True), Caller(user_id="s", is_service=True)], ids=repr)
def test_admins_and_services_pay_for_messages_alone(caller: Caller) -> None:
    assert cost_of(send(caller), state()) == (MESSAGE, (caller.user_id,))
    for one in (create("ben", by=caller), command(JoinRoom, caller), command(AddMember, caller, user_id="ben")):
        before = RoomState(None) if isinstance(one, CreateRoom) else state()
        assert cost_of(one, before)[0] == ()


def test_creation_reserves_its_room_for_its_creator_and_every_member() -> None:
    [reserved] = costs_of([create("ben")], {ROOM: RoomState(None)}).reservations.values()
    assert reserved == (
        Reservation(Quota.CREATED, "ann", ROOM),
        Reservation(Quota.JOINED, "ann", ROOM),
        Reservation(Quota.JOINED, "ben", ROOM),
    )
    assert costs_of([create("ben")], {ROOM: state("ann")}).reservations == {}


def test_exempt_callers_reserve_too() -> None:
    admin = Caller(user_id="admin", is_admin=True)
    assert costs_of([command(JoinRoom, admin)], {ROOM: state()}).reservations == {
        0: (Reservation(Quota.JOINED, "admin", ROOM),)
    }
