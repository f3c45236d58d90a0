"""Roles: who may give them, the one creator of a room with members, and who succeeds a creator that leaves."""

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.decision import PendingCommand, RoomState
from chat_service.rooms.decisions import decide
from chat_service.rooms.entry_deliveries import frame_of
from chat_service.rooms.log import EntryKind, LogEntry, apply, effect_of, member_of
from chat_service.rooms.requirements import creator_needed, heirs_needed, users_of
from chat_service.rooms.room import Member, Role, Room, RoomType, heir_of
from shared.commands.chat import (
    AddMember,
    AnyRoomCommand,
    CreateRoom,
    JoinRoom,
    LeaveRoom,
    RemoveMember,
    SendMessage,
    UpdateRoom,
)
from shared.commands.chat_views import MemberView, RoomView
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import PresenceView

ROOM = "room_1"
TERM = 1
ADMIN = "admin"
numbers = itertools.count(1)


def on_room(kind: type[Any], by: str, /, **fields: Any) -> Any:
    caller = Caller(user_id=by, is_admin=by == ADMIN)
    return kind(id=f"cmd_{next(numbers)}", expires_at_monotonic_ms=0, caller=caller, room_id=ROOM, **fields)


def add(by: str, user_id: str, role: Any = None) -> AddMember:
    return on_room(AddMember, by, user_id=user_id, role=role)  # type: ignore[no-any-return]


def remove(by: str, user_id: str) -> RemoveMember:
    return on_room(RemoveMember, by, user_id=user_id)  # type: ignore[no-any-return]


def leave(by: str) -> LeaveRoom:
    return on_room(LeaveRoom, by)  # type: ignore[no-any-return]


def join(by: str) -> JoinRoom:
    return on_room(JoinRoom, by)  # type: ignore[no-any-return]


class RolesWorld:
    """A room as its database holds it, and a partition that loads from it only what a batch needs."""

    def __init__(self, kind: str, *members: str) -> None:
        self.room: Room | None = None
        self.stored: dict[str, Member | None] = {}
        self.entries: list[LogEntry] = []
        self.now_ms = 0
        created = on_room(CreateRoom, "ann", name="Gold", description="", type=kind, member_ids=members)
        self.decide(created)

    def decide(self, *commands: AnyRoomCommand) -> list[Any]:
        """Load the data for the commands, decide them as one batch, and store its entries."""
        self.now_ms += 1
        state = RoomState(copy.deepcopy(self.room))
        named = {user_id for command in commands for user_id in users_of(command)}
        if state.room is not None:
            named |= {creator for command in commands if (creator := creator_needed(command, state.room)) is not None}
        for user_id in named:
            state.members[user_id] = copy.deepcopy(self.stored.get(user_id))
            state.presence[user_id] = PresenceView(user_id=user_id, status="offline", last_seen_at=None)
        for heir in self._heirs(commands, state):
            state.members.setdefault(heir.user_id, copy.deepcopy(heir))
        changes = decide([PendingCommand(command) for command in commands], {ROOM: state}, TERM, self.now_ms)
        for entry in changes.entries:
            self.room = apply(entry, self.room)
            self.stored |= {effect.user_id: member_of(ROOM, effect) for effect in entry.members}
        self.entries += changes.entries
        return changes.answers

    def _heirs(self, commands: tuple[AnyRoomCommand, ...], state: RoomState) -> list[Member]:
        """Do as `MemberStore.heirs` does."""
        count = 0 if state.room is None else heirs_needed(commands, state.room)
        joined = [member for member in self.stored.values() if member is not None and member.is_joined]
        longest = sorted(joined, key=lambda member: (member.joined_at_ms, member.user_id))
        moderators = [member for member in joined if member.role is Role.MODERATOR]
        return sorted(moderators, key=lambda member: member.role_since_ms)[:count] + longest[:count]

    def one(self, command: AnyRoomCommand) -> Any:
        (answer,) = self.decide(command)
        return answer

    @property
    def roles(self) -> dict[str, str]:
        """Return the roles of the members by user."""
        members = self.stored.values()
        return {member.user_id: member.role.value for member in members if member is not None and member.is_joined}

    @property
    def creator_id(self) -> str | None:
        assert self.room is not None
        return self.room.creator_id

    @property
    def newest(self) -> LogEntry:
        return self.entries[-1]


# Giving roles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["ann", ADMIN])
def test_creator_and_admin_make_and_unmake_moderators(by: str) -> None:
    world = RolesWorld("private", "ben")
    for role in ("moderator", "member"):
        view = world.one(add(by, "ben", role))
        assert isinstance(view, MemberView)
        assert (view.role, world.roles["ben"]) == (role, role)
        assert (world.newest.kind, world.newest.member_count, frame_of(world.newest)) == (EntryKind.ROLE, 2, b"")


def test_non_member_is_invited_with_the_role() -> None:
    world = RolesWorld("private")
    assert world.one(add("ann", "new", "moderator")).role == "moderator"
    assert (world.newest.kind, world.roles) == (EntryKind.ADDED, {"ann": "creator", "new": "moderator"})


@pytest.mark.parametrize("role", [None, "member", "moderator", "creator"])
def test_same_role_again_changes_nothing(role: str | None) -> None:
    world = RolesWorld("private", "ben", "cat")
    first = world.one(add(ADMIN, "ben", role))
    entries = list(world.entries)
    assert world.one(add(ADMIN, "ben", role)) == first
    assert world.entries == entries


def test_member_keeps_the_role_when_invited_again_without_one() -> None:
    world = RolesWorld("private", "ben")
    world.one(add("ann", "ben", "moderator"))
    assert world.one(add("ann", "ben")).role == "moderator"


@pytest.mark.parametrize("by", ["ann", ADMIN])
@pytest.mark.parametrize("heir", ["ben", "new"])
def test_handing_over_makes_the_creator_before_a_moderator_in_the_same_entry(by: str, heir: str) -> None:
    world = RolesWorld("private", "ben")
    entries = len(world.entries)
    assert world.one(add(by, heir, "creator")).role == "creator"
    assert (world.roles["ann"], world.roles[heir], world.creator_id) == ("moderator", "creator", heir)
    assert len(world.entries) == entries + 1
    assert [effect.user_id for effect in world.newest.members] == [heir, "ann"]
    assert world.one(on_room(UpdateRoom, "ann", name="Mine")).code is ErrorCode.FORBIDDEN
    view = world.one(on_room(UpdateRoom, heir, name="Ours"))
    assert isinstance(view, RoomView)
    assert view.created_by == "ann", "the creator of old stays in the record"


@pytest.mark.parametrize("role", ["member", "moderator"])
def test_creator_gets_no_other_role(role: str) -> None:
    world = RolesWorld("private", "ben")
    refusal = world.one(add(ADMIN, "ann", role))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.details[0].field) == (ErrorCode.VALIDATION, "role")


@pytest.mark.parametrize("by", ["mod", "ben"])
@pytest.mark.parametrize("role", ["member", "moderator", "creator"])
def test_moderators_and_members_give_no_roles(by: str, role: str) -> None:
    world = RolesWorld("private", "mod", "ben")
    world.one(add("ann", "mod", "moderator"))
    for command in (add(by, "ben", role), add(by, "new", role), add(by, by, role), remove(by, "ben")):
        assert world.one(command).code is ErrorCode.FORBIDDEN


# Succession ---------------------------------------------------------------------------------------------------------


def grown() -> RolesWorld:
    """Return a room in which dan has been moderator for longer than ben, and cat a member for longer than eve."""
    world = RolesWorld("private")
    for user_id in ("ben", "cat", "dan", "eve"):
        world.one(add("ann", user_id))
    for user_id in ("dan", "ben"):
        world.one(add("ann", user_id, "moderator"))
    return world


@pytest.mark.parametrize("command", [leave("ann"), remove(ADMIN, "ann"), remove("ann", "ann")])
def test_departing_creator_passes_the_room_on_in_the_same_entry(command: AnyRoomCommand) -> None:
    world = grown()
    entries = len(world.entries)
    world.one(command)
    assert (len(world.entries), world.creator_id) == (entries + 1, "dan")
    assert [(effect.user_id, effect.is_joined) for effect in world.newest.members] == [("ann", False), ("dan", True)]


def test_successors_are_moderators_then_members_by_standing() -> None:
    world, order = grown(), []
    while world.roles:
        assert world.creator_id is not None
        order.append(world.creator_id)
        world.one(leave(world.creator_id))
    assert order == ["ann", "dan", "ben", "cat", "eve"]


def test_successors_are_found_when_all_leave_in_one_batch() -> None:
    world = grown()
    world.decide(*(leave(user_id) for user_id in ("ann", "dan", "ben", "cat")))
    assert (world.roles, world.creator_id) == ({"eve": "creator"}, "eve")


def test_candidate_who_leaves_earlier_in_the_batch_is_passed_over() -> None:
    world = grown()
    world.decide(leave("dan"), add("ann", "ben", "member"), leave("ann"))
    assert world.creator_id == "ben", "a member since before cat"


def test_moderator_made_in_the_batch_succeeds() -> None:
    world = RolesWorld("private", "ben", "cat")
    world.decide(add("ann", "cat", "moderator"), leave("ann"))
    assert world.creator_id == "cat"


def test_creator_made_in_the_batch_is_succeeded() -> None:
    world = grown()
    world.decide(add("ann", "cat", "creator"), leave("cat"))
    assert world.creator_id == "dan"
    assert world.roles["ann"] == "moderator", "for a shorter time than dan"


def test_last_creator_to_leave_comes_back_as_creator() -> None:
    world = RolesWorld("private")
    world.one(leave("ann"))
    assert (world.roles, world.creator_id) == ({}, "ann")
    assert isinstance(world.one(on_room(UpdateRoom, "ann", name="Still mine")), RoomView)
    world.one(join("ann"))
    assert world.roles == {"ann": "creator"}


def test_first_to_join_an_empty_room_is_creator() -> None:
    world = RolesWorld("public")
    world.one(leave("ann"))
    world.one(on_room(SendMessage, "zoe", message_id="msg_1", message="hi"))
    world.one(join("ann"))
    assert world.roles == {"zoe": "creator", "ann": "member"}


def test_removed_creator_of_an_otherwise_empty_room_has_lost_it() -> None:
    world = RolesWorld("private")
    world.one(remove(ADMIN, "ann"))
    assert world.creator_id is None
    for command in (join("ann"), on_room(UpdateRoom, "ann", name="Mine"), add("ann", "ben")):
        assert world.one(command).code is ErrorCode.NOT_FOUND
    assert world.one(add(ADMIN, "ben")).role == "creator"


def test_creator_who_left_a_room_of_an_earlier_version_keeps_its_rights() -> None:
    world = RolesWorld("private", "ben", "cat")
    world.stored["ann"] = None  # earlier versions had no succession
    assert world.room is not None
    world.room.member_count = 2
    assert isinstance(world.one(on_room(UpdateRoom, "ann", name="Still mine")), RoomView)
    world.one(leave("cat"))
    assert world.creator_id == "ann", "who is no creator passes nothing on"
    world.one(join("ann"))
    assert world.roles == {"ben": "member", "ann": "creator"}


def test_room_of_an_earlier_version_is_handed_over() -> None:
    world = RolesWorld("private", "ben")
    world.stored["ann"] = None
    world.one(add("ann", "ben", "creator"))
    assert (world.roles, world.creator_id) == ({"ben": "creator"}, "ben")
    assert world.one(on_room(UpdateRoom, "ann", name="Mine")).code is ErrorCode.NOT_FOUND


def test_entries_of_an_earlier_version_name_no_creator() -> None:
    world = RolesWorld("private")
    entry = world.entries[0]
    assert entry.settings is not None
    old = {"name": "Gold", "description": "", "type": RoomType.PRIVATE, "created_by": "ann", "created_at_ms": 1}
    settings = type(entry.settings)(**old)  # type: ignore[arg-type]
    room = apply(LogEntry(**{**_fields(entry), "settings": settings}), None)
    assert room.creator_id == "ann"


def _fields(entry: LogEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


USERS = ["ann", "ben", "cat", "dan", ADMIN]
users = st.sampled_from(USERS)
drawn = st.one_of(
    st.builds(leave, users),
    st.builds(join, users),
    st.builds(remove, users, users),
    st.builds(add, users, users, st.sampled_from([None, "member", "moderator", "creator"])),
    st.builds(lambda by: on_room(SendMessage, by, message_id=f"msg_{next(numbers)}", message="hi"), users),
    st.builds(lambda by, kind: on_room(UpdateRoom, by, type=kind), users, st.sampled_from(["public", "private"])),
)


@given(st.sampled_from(["public", "private"]), st.lists(st.lists(drawn, min_size=1, max_size=6), max_size=12))
def test_room_with_members_has_exactly_one_creator(kind: str, batches: list[list[AnyRoomCommand]]) -> None:
    world = RolesWorld(kind, "ben")
    for batch in batches:
        before = copy.deepcopy({user_id: member for user_id, member in world.stored.items() if member is not None})
        entries = len(world.entries)
        world.decide(*batch)
        creators = [user_id for user_id, role in world.roles.items() if role == "creator"]
        assert creators == ([world.creator_id] if world.roles else [])
        for entry in world.entries[entries:]:
            _check_succession(entry, before)
            before |= {effect.user_id: member for effect in entry.members if (member := member_of(ROOM, effect))}
            for effect in entry.members:
                if not (effect.is_joined or effect.is_invited):
                    before.pop(effect.user_id, None)


def _check_succession(entry: LogEntry, before: dict[str, Member]) -> None:
    """Check that a creator who goes is succeeded by the first of those who stay."""
    gone = entry.members[0] if entry.members else None
    if entry.kind not in (EntryKind.LEFT, EntryKind.REMOVED) or gone is None or gone.user_id not in before:
        return
    if before[gone.user_id].role is not Role.CREATOR or not before[gone.user_id].is_joined:
        return
    heir = heir_of(member for user_id, member in before.items() if user_id != gone.user_id)
    assert [effect.user_id for effect in entry.members[1:]] == ([] if heir is None else [heir.user_id])


def test_effect_keeps_the_time_of_a_role() -> None:
    world = grown()
    member = world.stored["dan"]
    assert member is not None
    assert member_of(ROOM, effect_of("dan", member)) == member
    assert member.role_since_ms > member.joined_at_ms
