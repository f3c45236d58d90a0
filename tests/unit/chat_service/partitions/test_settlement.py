"""The charges of users once a batch is answered: exactly those of commands that took effect or were refused."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chat_service.partitions.costs import costs_of
from chat_service.partitions.rates import MESSAGE, MINUTE_MS, Charge, Cost, Costs, Limit, Rate, RateWindows
from chat_service.partitions.settlement import ChargeOutcome, Settled, outcome_of, refunds_of
from chat_service.rooms.decision import Changes, PendingCommand, RoomState
from chat_service.rooms.decisions import decide
from chat_service.rooms.log import LogEntry
from chat_service.rooms.message import RecentMessages
from chat_service.rooms.message_decisions import sent_again
from chat_service.rooms.room import Member, Role, Room, RoomType
from shared.commands.chat import (
    AddMember,
    AnyRoomCommand,
    Gone,
    JoinRoom,
    LeaveRoom,
    RemoveMember,
    SendMessage,
    UpdateRoom,
)
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import PresenceView, UserProfile
from tests.support.log_entries import message_at

ROOM = "room_1"
USERS = ("ann", "ben", "cat")  # ann made the room
UNITS = 100
BEYOND = Refusal(ErrorCode.RATE_LIMITED, "too many")


@dataclass
class Batches:
    """A room, its callers' windows, and the changes of membership that its log shows."""

    joins: int = UNITS
    state: RoomState = field(default_factory=lambda: room_of())
    moves: dict[str, int] = field(default_factory=lambda: dict.fromkeys(USERS, 0))
    probes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(USERS, 0))
    count: int = 0

    def __post_init__(self) -> None:
        self.windows = RateWindows({rate: Limit(UNITS, MINUTE_MS) for rate in Rate})
        for user in USERS:
            if self.joins < UNITS:
                self.windows.charge(user, "before", (Cost(Rate.JOINS, UNITS - self.joins),), 0)

    def command(self, what: str, by: str) -> AnyRoomCommand:
        self.count += 1
        id_ = f"cmd_{self.count}"
        head: dict[str, Any] = {"id": id_, "expires_at_monotonic_ms": 0, "caller": Caller(user_id=by), "room_id": ROOM}
        kind, _, argument = what.partition(" ")
        match kind:
            case "send":
                return SendMessage(**head, message_id=id_, message="hi", client_message_id=argument or None)
            case "join":
                return JoinRoom(**head)
            case "leave":
                return LeaveRoom(**head)
            case "add":
                return AddMember(**head, user_id=argument)
            case "remove":
                return RemoveMember(**head, user_id=argument)
            case "type":
                return UpdateRoom(**head, type=argument)
            case _:
                raise AssertionError(what)

    def run(self, *acts: tuple[str, str]) -> Changes:
        """Charge, decide and settle a batch of (what, by)."""
        commands = [self.command(*act) for act in acts]
        states = {ROOM: self.state}
        for user in USERS:
            self.state.members.setdefault(user, None)
            self.state.presence[user] = PresenceView(user_id=user, status="offline", last_seen_at=None)
        costs = costs_of(commands, states).costs
        refusals: list[Refusal | None] = []
        charged: list[Costs] = []
        for command, some in zip(commands, costs, strict=True):
            excess = self.windows.charge(command.caller.user_id, command.id, some, 0) if some else None
            refusals.append(None if excess is None else BEYOND)
            charged.append(some if excess is None else ())
        pending = [PendingCommand(one, refusal=limit) for one, limit in zip(commands, refusals, strict=True)]
        changes = decide(pending, states, 1, 0)
        entries = {entry.id: entry for entry in changes.entries}
        settled: list[Settled] = []
        for command, some, limit, answer in zip(commands, charged, refusals, changes.answers, strict=True):
            user, entry = command.caller.user_id, entries.get(command.id)
            outcome = outcome_of(command.caller.user_id, answer, limit, entry)
            settled.append(Settled(Charge(user, command.id), some, outcome))
            if isinstance(command, SendMessage | JoinRoom | LeaveRoom):
                self.moves[user] += entry is not None and bool(entry.members)
                self.probes[user] += outcome is ChargeOutcome.REFUSED
        for charge, rates in refunds_of(settled).items():
            self.windows.refund(*charge, rates)
        return changes

    def paid(self, user: str, rate: Rate = Rate.JOINS) -> int:
        """Return the units that count for a user; without refunds nothing is charged by asking."""
        free = 0
        while self.windows.charge(user, f"probe_{free}", (Cost(rate),), 0) is None:
            free += 1
        for number in range(free):
            self.windows.refund(user, f"probe_{number}", [rate])
        return UNITS - free - (UNITS - self.joins if rate is Rate.JOINS else 0)


def room_of(*members: str, kind: RoomType = RoomType.PUBLIC) -> RoomState:
    room = Room(
        id=ROOM, name="", description="", type=kind, created_by="ann", creator_id="ann", created_at_ms=0, active_at_ms=0
    )
    joined: dict[str, Member | None] = {
        user: Member(
            room_id=ROOM,
            user_id=user,
            role=Role.MEMBER,
            joined_at_ms=0,
            role_since_ms=0,
            read_seq=0,
            profile=UserProfile(),
        )
        for user in members
    }
    room.member_count = len(members)
    return RoomState(room, joined, recent=RecentMessages())


def kinds(changes: Changes) -> list[LogEntry | str]:
    return [entry.kind.value for entry in changes.entries]


def test_second_leave_of_a_batch_does_not_slip_past_the_limit() -> None:
    batches = Batches(joins=0, state=room_of("ann", "ben"))
    assert batches.run(("leave", "ben"), ("leave", "ben")).entries == []


def test_leave_that_changed_nothing_is_refunded() -> None:
    batches = Batches(state=room_of("ann", "ben"))
    batches.run(("leave", "ben"), ("leave", "ben"), ("leave", "ben"))
    assert batches.paid("ben") == 1


def test_repeat_does_not_get_back_the_join_of_the_next_message() -> None:
    batches = Batches()
    batches.run(("send old", "ben"), ("leave", "ben"))
    assert batches.paid("ben") == 2
    batches.run(("send old", "ben"), ("send", "ben"))
    assert (batches.paid("ben"), batches.paid("ben", Rate.MESSAGES)) == (3, 2)


def test_forbidden_removals_cost_their_target_nothing() -> None:
    batches = Batches(joins=0, state=room_of("ann", "ben", "cat"))
    for _ in range(3):
        assert kinds(batches.run(("remove ben", "cat"), ("send", "ben"))) == ["message"]
    assert kinds(batches.run(("remove ben", "cat"), ("leave", "ben"))) == []


def test_message_of_a_member_that_might_have_been_removed_pays_no_join() -> None:
    batches = Batches(state=room_of("ann", "ben"))
    batches.run(("leave", "ben"), ("join", "ben"), ("send", "ben"), ("send", "ben"))
    assert (batches.paid("ben"), batches.paid("ben", Rate.MESSAGES)) == (2, 2)


def test_message_of_a_member_who_was_just_added_pays_no_join() -> None:
    batches = Batches(state=room_of("ann"))
    batches.run(("add ben", "ann"), ("send", "ben"), ("send", "ben"))
    assert (batches.paid("ben"), batches.paid("ben", Rate.MESSAGES)) == (0, 2)


def test_unanswered_command_keeps_the_shared_charge() -> None:
    joining = (*MESSAGE, Cost(Rate.JOINS, 1, "c1"))
    settled = [
        Settled(Charge("ann", "c1"), joining, ChargeOutcome.FREE),
        Settled(Charge("ann", "c2"), joining, ChargeOutcome.UNKNOWN),
    ]
    assert refunds_of(settled) == {Charge("ann", "c1"): [Rate.MESSAGES]}
    assert refunds_of(settled[:1]) == {Charge("ann", "c1"): [Rate.MESSAGES, Rate.JOINS]}


def test_repeat_that_only_the_log_recognised_keeps_its_charge() -> None:
    stored = message_at(2, "m1").message
    assert stored is not None
    repeat = sent_again(stored)
    assert outcome_of("ann", repeat, None, None) is ChargeOutcome.FREE
    assert outcome_of("ann", repeat, None, None, was_refused_by_log=True) is ChargeOutcome.CHANGED
    assert outcome_of("ann", Gone(id="room_1"), None, None, was_refused_by_log=True) is ChargeOutcome.FREE


MESSAGES = ("send", "send old", "send older")
OF_MEMBERS = ("join", "leave", "remove ben", "remove cat", "add ben", "add cat")
OF_ROOMS = ("type public", "type private")
acts = st.tuples(st.sampled_from((*MESSAGES, *OF_MEMBERS, *OF_ROOMS)), st.sampled_from(USERS))


@given(
    batches=st.lists(st.lists(acts, min_size=1, max_size=8), min_size=1, max_size=4),
    joins=st.sampled_from([0, 1, 2, UNITS]),
    members=st.sets(st.sampled_from(USERS)),
    kind=st.sampled_from([RoomType.PUBLIC, RoomType.PRIVATE]),
)
def test_users_pay_for_each_join_and_leave_and_for_nothing_else(
    batches: list[list[tuple[str, str]]], joins: int, members: set[str], kind: RoomType
) -> None:
    world = Batches(joins=joins, state=room_of(*members, kind=kind))
    for batch in batches:
        world.run(*batch)
    for user in USERS:
        assert world.moves[user] <= joins
        assert world.moves[user] <= world.paid(user) <= world.moves[user] + world.probes[user]
