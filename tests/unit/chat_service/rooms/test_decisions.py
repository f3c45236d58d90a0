"""Decisions on room commands: permissions, outcomes, and consistency over crashes and redeliveries."""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.decision import Changes, PendingCommand, RoomState
from chat_service.rooms.decisions import decide
from chat_service.rooms.entry_deliveries import deliveries_of
from chat_service.rooms.log import EntryKind, LogEntry, apply, member_of
from chat_service.rooms.message import Message, RecentMessages
from chat_service.rooms.requirements import requirements_of, users_of
from chat_service.rooms.room import Role, Room, RoomType
from shared.bus.delivery import Delivery, DeliveryKind, room_channel, user_channel
from shared.commands.chat import (
    AddMember,
    AnyRoomCommand,
    CreateRoom,
    DeleteMessage,
    DeleteRoom,
    Gone,
    JoinRoom,
    LeaveRoom,
    MarkRead,
    RemoveMember,
    RoomHead,
    SendDirect,
    SendMessage,
    Sent,
    SetTyping,
    SubscribeRoom,
    UpdateRoom,
)
from shared.commands.chat_views import MemberView, RoomView
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.ids import direct_room_id
from shared.protocol.server_frames import PresenceView, ReadMark, TypingMark, UserProfile

NOW_MS = 1_761_048_000_000
TERM = 7
ROOM = "room_1"
CREATOR, MEMBER, STRANGER, ADMIN = "creator", "member", "stranger", "admin"
ORDERED, TRANSIENT, CONTROL = DeliveryKind.ORDERED, DeliveryKind.TRANSIENT, DeliveryKind.CONTROL
SLOWER = Refusal(ErrorCode.RATE_LIMITED, "too many", retry_after_ms=1500)
numbers = itertools.count(1)


def head(user_id: str) -> dict[str, Any]:
    return {
        "id": f"cmd_{next(numbers)}",
        "expires_at_monotonic_ms": NOW_MS + 5000,
        "caller": Caller(user_id=user_id, is_admin=user_id == ADMIN),
    }


def send(user_id: str, key: str | None = None, text: str = "hi", message_id: str | None = None) -> SendMessage:
    return SendMessage(
        **head(user_id),
        room_id=ROOM,
        message_id=message_id or f"msg_{next(numbers)}",
        message=text,
        client_message_id=key,
    )


def on_room(kind: type[Any], by: str, /, **fields: Any) -> Any:
    return kind(**head(by), room_id=ROOM, **fields)


class ChatRoom:
    """One room in its partition's memory."""

    def __init__(self, kind: str = "public", members: tuple[str, ...] = (CREATOR, MEMBER)) -> None:
        self.kind = kind
        self.states: dict[str, RoomState] = {ROOM: RoomState(None)}
        self.changes = Changes()
        self.log: dict[str, LogEntry] = {}
        create = on_room(CreateRoom, CREATOR, name="Gold", description="", type=kind, member_ids=members)
        self.created = self.ask(create)

    @property
    def state(self) -> RoomState:
        return self.states[ROOM]

    @property
    def room(self) -> Room:
        assert self.state.room is not None
        return self.state.room

    def ask(self, command: AnyRoomCommand, **circumstances: Any) -> Any:
        """Decide one command, keep the changes and return the answer."""
        for user_id in users_of(command):
            self.state.members.setdefault(user_id, None)
        if isinstance(command, AddMember):
            self.state.presence[command.user_id] = PresenceView(
                user_id=command.user_id, status="offline", last_seen_at=None
            )
        self.state.stored = dict(self.log) if circumstances.get("is_resent") else {}
        self.changes = decide([PendingCommand(command, **circumstances)], self.states, TERM, NOW_MS)
        self.log |= {entry.id: entry for entry in self.changes.entries}
        (answer,) = self.changes.answers
        return answer

    def refused(self, command: AnyRoomCommand, **circumstances: Any) -> ErrorCode:
        """Decide a command that must be refused, and check that nothing changes."""
        before = copy.deepcopy((self.state.room, self.state.members))
        answer = self.ask(command, **circumstances)
        assert isinstance(answer, Refusal), answer
        assert_nothing_changed(self.changes)
        assert (self.state.room, {**before[1], **self.state.members}) == (
            before[0],
            {**self.state.members, **before[1]},
        )
        return answer.code

    def deliveries(self, kind: DeliveryKind | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """Return channel, key and frame (as JSON) of each delivery that has one."""
        chosen = (item for item in deliveries_in(self.changes) if kind in (None, item.kind) and item.frame)
        return [(item.channel, item.key, json.loads(item.frame)) for item in chosen]

    def frames(self) -> list[str]:
        """Return the types of the delivered client frames."""
        return [frame["type"] for _, _, frame in self.deliveries() if "type" in frame]

    def joined(self) -> set[str]:
        return {user_id for user_id, member in self.state.members.items() if member is not None and member.is_joined}


def deliveries_in(changes: Changes, direct: tuple[str, str] | None = None) -> list[Delivery]:
    """Return every delivery of a batch, those of its entries first."""
    entries = [*changes.found.values(), *changes.entries]
    return [delivery for entry in entries for delivery in deliveries_of(entry, direct)] + changes.deliveries


def messages_of(changes: Changes) -> list[Message]:
    return [entry.message for entry in changes.entries if entry.message is not None]


def assert_nothing_changed(changes: Changes) -> None:
    assert not (changes.entries or changes.read_marks or changes.deliveries)


COMMANDS: dict[str, Callable[[str], Any]] = {
    "send": send,
    "subscribe": lambda user: on_room(SubscribeRoom, user),
    "typing": lambda user: on_room(SetTyping, user, is_typing=True),
    "read": lambda user: on_room(MarkRead, user, seq=0),
    "join": lambda user: on_room(JoinRoom, user),
    "leave": lambda user: on_room(LeaveRoom, user),
    "update": lambda user: on_room(UpdateRoom, user, name="New"),
    "delete": lambda user: on_room(DeleteRoom, user),
    "add": lambda user: on_room(AddMember, user, user_id="new"),
    "remove": lambda user: on_room(RemoveMember, user, user_id=MEMBER),
}
OK, NOT_FOUND, FORBIDDEN = None, ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN
# protocol.md, «REST», notes and «Public rooms: …»
RULES: dict[str, dict[str, dict[str, ErrorCode | None]]] = {
    "public": {
        STRANGER: {
            **dict.fromkeys(["send", "subscribe", "typing", "join", "leave"], OK),
            **dict.fromkeys(["read", "update", "delete", "add", "remove"], FORBIDDEN),
        },
        MEMBER: {
            **dict.fromkeys(["send", "subscribe", "typing", "read", "join", "leave"], OK),
            **dict.fromkeys(["update", "delete", "add", "remove"], FORBIDDEN),
        },
        CREATOR: dict.fromkeys(COMMANDS, OK),
        ADMIN: {**dict.fromkeys(COMMANDS, OK), "read": FORBIDDEN},
    },
    "private": {
        STRANGER: dict.fromkeys(COMMANDS, NOT_FOUND),
        MEMBER: {
            **dict.fromkeys(["send", "subscribe", "typing", "read", "join", "leave"], OK),
            **dict.fromkeys(["update", "delete", "add", "remove"], FORBIDDEN),
        },
        CREATOR: dict.fromkeys(COMMANDS, OK),
        ADMIN: {
            **dict.fromkeys(["send", "subscribe", "typing", "read", "join", "leave"], NOT_FOUND),
            **dict.fromkeys(["update", "delete", "add", "remove"], OK),
        },
    },
}
RULES["group"] = RULES["private"]


def cases() -> Iterator[tuple[str, str, str, ErrorCode | None]]:
    for kind, users in RULES.items():
        for user, rules in users.items():
            assert rules.keys() == COMMANDS.keys()
            for command, expected in rules.items():
                yield kind, user, command, expected


@pytest.mark.parametrize(("kind", "user", "command", "expected"), list(cases()))
def test_permissions_of_each_command(kind: str, user: str, command: str, expected: ErrorCode | None) -> None:
    chat = ChatRoom(kind)
    asked = COMMANDS[command](user)
    if expected is None:
        assert not isinstance(chat.ask(asked), Refusal)
    else:
        assert chat.refused(asked) is expected


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("user", [STRANGER, MEMBER, CREATOR, ADMIN])
@pytest.mark.parametrize("kind", ["public", "private"])
def test_deleted_room_exists_for_nobody(kind: str, user: str, command: str) -> None:
    chat = ChatRoom(kind)
    assert chat.ask(on_room(DeleteRoom, CREATOR)) == Gone(id=ROOM)
    assert chat.refused(COMMANDS[command](user)) is NOT_FOUND


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("user", [STRANGER, ADMIN])
def test_unknown_room_exists_for_nobody(user: str, command: str) -> None:
    chat = ChatRoom()
    chat.states[ROOM] = RoomState(None)
    assert chat.refused(COMMANDS[command](user)) is NOT_FOUND


def test_stranger_cannot_tell_private_room_from_missing_one() -> None:
    private, none = ChatRoom("private"), ChatRoom()
    none.states[ROOM] = RoomState(None)
    for command in COMMANDS.values():
        answers = [str(chat.ask(command(STRANGER))) for chat in (private, none)]
        assert answers[0] == answers[1]


# Rooms --------------------------------------------------------------------------------------------------------------


def test_new_room_has_creator_and_invited_members() -> None:
    chat = ChatRoom("group", members=("b", CREATOR, "c"))
    assert isinstance(chat.created, RoomView)
    assert (chat.created.member_count, chat.created.is_member, chat.created.created_by) == (3, True, CREATOR)
    assert chat.joined() == {CREATOR, "b", "c"}
    roles = {user: member.role for user, member in chat.state.members.items() if member is not None}
    assert roles == {CREATOR: Role.CREATOR, "b": Role.MEMBER, "c": Role.MEMBER}


def test_create_is_idempotent() -> None:
    chat = ChatRoom()
    again = on_room(CreateRoom, CREATOR, name="Other", description="", type="private", member_ids=("x",))
    answer = chat.ask(again)
    assert (answer.name, answer.type, answer.member_count) == ("Gold", "public", 2)
    assert_nothing_changed(chat.changes)


def test_update_changes_only_given_fields() -> None:
    chat = ChatRoom()
    answer = chat.ask(on_room(UpdateRoom, CREATOR, description="about gold"))
    assert (answer.name, answer.description, answer.type) == ("Gold", "about gold", "public")
    assert chat.deliveries() == [
        (
            room_channel(ROOM),
            "",
            {
                "type": "chatroom:updated",
                "data": {"chatroomId": ROOM, "name": "Gold", "description": "about gold", "type": "public"},
            },
        )
    ]


def test_room_that_stops_being_public_rechecks_subscribers() -> None:
    chat = ChatRoom()
    chat.ask(on_room(UpdateRoom, CREATOR, type="private"))
    assert chat.deliveries(CONTROL) == [(room_channel(ROOM), "recheck", {})]
    assert chat.refused(send(STRANGER)) is NOT_FOUND
    chat.ask(on_room(UpdateRoom, CREATOR, name="Still private"))
    assert chat.deliveries(CONTROL) == []


def test_delete_sends_control_delivery_and_survives_redelivery() -> None:
    chat = ChatRoom()
    command = on_room(DeleteRoom, ADMIN)
    assert chat.ask(command) == Gone(id=ROOM)
    assert chat.deliveries(CONTROL) == [(room_channel(ROOM), "deleted", {})]
    assert chat.ask(command, is_resent=True) == Gone(id=ROOM)
    assert chat.deliveries(CONTROL) == [(room_channel(ROOM), "deleted", {})]


def test_subscribe_returns_head_of_room() -> None:
    chat = ChatRoom()
    for _ in range(3):
        chat.ask(send(MEMBER))
    chat.state.active_now = 2
    assert chat.ask(on_room(SubscribeRoom, STRANGER)) == RoomHead(seq=3, rev=4, active_now=2, is_direct=False)
    assert_nothing_changed(chat.changes)


# Members ------------------------------------------------------------------------------------------------------------


def test_join_and_leave_change_count_once() -> None:
    chat = ChatRoom()
    for _ in range(2):
        assert chat.ask(on_room(JoinRoom, STRANGER)).member_count == 3
    assert chat.frames() == []
    for _ in range(2):
        answer = chat.ask(on_room(LeaveRoom, STRANGER))
        assert (answer.member_count, answer.is_member) == (2, False)
    assert chat.frames() == []


def test_join_and_leave_are_announced_with_member_count() -> None:
    chat = ChatRoom()
    chat.ask(on_room(JoinRoom, STRANGER), profile=UserProfile(first_name="Jo"))
    ((channel, _, frame),) = chat.deliveries(ORDERED)
    assert (channel, frame["type"], frame["data"]["memberCount"]) == (room_channel(ROOM), "member:joined", 3)
    assert frame["data"]["user"]["firstName"] == "Jo"
    chat.ask(on_room(LeaveRoom, STRANGER))
    ((_, _, frame),) = chat.deliveries()
    assert (frame["type"], frame["data"]) == (
        "member:left",
        {"chatroomId": ROOM, "userId": STRANGER, "memberCount": 2},
    )


def test_member_who_leaves_private_room_is_evicted_and_may_rejoin() -> None:
    chat = ChatRoom("private")
    chat.ask(on_room(LeaveRoom, MEMBER))
    assert chat.deliveries(CONTROL) == [(room_channel(ROOM), "evict", {"userId": MEMBER})]
    assert chat.refused(on_room(SubscribeRoom, MEMBER)) is NOT_FOUND
    assert chat.ask(on_room(JoinRoom, MEMBER)).member_count == 2


def test_removed_member_is_evicted_and_may_not_rejoin() -> None:
    chat = ChatRoom("private")
    assert chat.ask(on_room(RemoveMember, CREATOR, user_id=MEMBER)) == Gone(id=MEMBER)
    told = {"userId": MEMBER, "reason": "removed"}
    assert chat.deliveries(CONTROL) == [
        (user_channel(MEMBER), "evict", {**told, "chatroomId": ROOM}),
        (room_channel(ROOM), "evict", told),
    ]
    (entry,) = chat.changes.entries
    assert [member_of(ROOM, effect) for effect in entry.members] == [None]
    assert chat.room.member_count == 1
    assert chat.refused(on_room(JoinRoom, MEMBER)) is NOT_FOUND


def test_removing_member_who_left_keeps_count() -> None:
    chat = ChatRoom("private")
    chat.ask(on_room(LeaveRoom, MEMBER))
    chat.ask(on_room(RemoveMember, CREATOR, user_id=MEMBER))
    assert chat.room.member_count == 1
    assert chat.refused(on_room(JoinRoom, MEMBER)) is NOT_FOUND


def test_removing_non_member_is_not_found_unless_this_command_did_it() -> None:
    chat = ChatRoom()
    assert chat.refused(on_room(RemoveMember, CREATOR, user_id=STRANGER)) is NOT_FOUND
    command = on_room(RemoveMember, CREATOR, user_id=MEMBER)
    for is_resent in (False, True):
        assert chat.ask(command, is_resent=is_resent) == Gone(id=MEMBER)
    assert chat.room.member_count == 1


def test_leaving_public_room_leaves_no_invitation() -> None:
    chat = ChatRoom("public")
    chat.ask(on_room(LeaveRoom, MEMBER))
    chat.ask(on_room(UpdateRoom, CREATOR, type="private"))
    assert chat.refused(on_room(JoinRoom, MEMBER)) is NOT_FOUND
    assert chat.refused(on_room(SubscribeRoom, MEMBER)) is NOT_FOUND


def test_add_member_is_idempotent() -> None:
    chat = ChatRoom("private")
    for _ in range(2):
        view = chat.ask(on_room(AddMember, CREATOR, user_id="new"))
        assert isinstance(view, MemberView)
        assert (view.user_id, view.role, view.status) == ("new", "member", "offline")
        assert chat.room.member_count == 3
    assert not isinstance(chat.ask(send("new")), Refusal)


# Messages -----------------------------------------------------------------------------------------------------------


def test_message_is_numbered_stored_delivered_and_answered() -> None:
    chat = ChatRoom()
    profile = UserProfile(first_name="John")
    command = send(MEMBER, key="c1", text="bullish")
    answer = chat.ask(command, profile=profile)
    assert isinstance(answer, Sent)
    assert (answer.repeated, answer.message.seq, answer.message.id) == (False, 1, command.message_id)
    (stored,) = messages_of(chat.changes)
    assert (stored.seq, stored.text, stored.user, stored.client_message_id) == (1, "bullish", profile, "c1")
    (delivery,) = deliveries_in(chat.changes)
    assert (delivery.channel, delivery.kind, delivery.position, delivery.key) == (room_channel(ROOM), ORDERED, 2, "")
    frame = json.loads(delivery.frame)
    assert (frame["type"], frame["data"]["seq"], frame["data"]["message"]) == ("chat:message", 1, "bullish")
    assert (chat.room.last_seq, chat.room.last_message_at_ms) == (1, NOW_MS)
    member = chat.state.members[MEMBER]
    assert member is not None
    assert member.read_seq == 1


def test_first_message_in_public_room_joins() -> None:
    chat = ChatRoom()
    chat.ask(send(STRANGER))
    assert chat.room.member_count == 3
    assert STRANGER in chat.joined()
    assert chat.frames() == ["member:joined", "chat:message"]


def test_same_client_message_id_is_same_message() -> None:
    chat = ChatRoom()
    first = chat.ask(send(MEMBER, key="c1", text="one"))
    second = chat.ask(send(MEMBER, key="c1", text="two"))
    assert (second.repeated, second.message) == (True, first.message)
    assert_nothing_changed(chat.changes)


def test_client_message_ids_are_per_user() -> None:
    chat = ChatRoom()
    assert chat.ask(send(MEMBER, key="c1")).message.seq == 1
    assert chat.ask(send(CREATOR, key="c1")).message.seq == 2


def test_message_without_client_message_id_is_always_new() -> None:
    chat = ChatRoom()
    assert [chat.ask(send(MEMBER)).message.seq for _ in range(3)] == [1, 2, 3]


def test_duplicate_is_found_above_rate_limit() -> None:
    chat = ChatRoom()
    chat.ask(send(MEMBER, key="c1"))
    assert chat.ask(send(MEMBER, key="c1"), refusal=SLOWER).repeated
    assert chat.refused(send(MEMBER, key="c2"), refusal=SLOWER) is ErrorCode.RATE_LIMITED


def test_message_above_rate_limit_changes_nothing_and_says_when_to_retry() -> None:
    chat = ChatRoom()
    for user in (MEMBER, STRANGER):
        answer = chat.ask(send(user, key="c1"), refusal=SLOWER)
        assert isinstance(answer, Refusal)
        assert (answer.code, answer.retry_after_ms) == (ErrorCode.RATE_LIMITED, 1500)
        assert_nothing_changed(chat.changes)
    assert chat.room.last_seq == 0
    assert not chat.ask(send(MEMBER, key="c1")).repeated


def test_message_sent_again_is_delivered_again_from_its_entry() -> None:
    chat = ChatRoom()
    command = send(MEMBER, key="c1")
    chat.ask(command)
    first = deliveries_in(chat.changes)
    chat.ask(send(MEMBER))
    answer = chat.ask(command, is_resent=True, refusal=SLOWER)
    assert (answer.repeated, answer.message.seq) == (True, 1)
    assert deliveries_in(chat.changes) == first
    assert not chat.changes.entries


def test_stored_message_is_answered_although_its_sender_was_removed() -> None:
    chat = ChatRoom("private")
    command = send(MEMBER)
    chat.ask(command)
    chat.ask(on_room(RemoveMember, CREATOR, user_id=MEMBER))
    assert chat.ask(command, is_resent=True).message.seq == 1
    assert chat.refused(send(MEMBER)) is NOT_FOUND


def test_refusal_of_a_command_sent_again_takes_the_rev_of_its_first_copy() -> None:
    chat = ChatRoom("private")
    answer = chat.ask(send(STRANGER), is_resent=True, may_land_later=True)
    assert answer.code is NOT_FOUND
    (entry,) = chat.changes.entries
    assert (entry.kind, entry.rev, entry.term) == (EntryKind.VOID, 2, TERM)
    assert chat.ask(send(MEMBER)).message.seq == 1, "a void entry takes no seq"


def test_first_copy_that_was_decided_here_costs_no_void() -> None:
    """The log has refused it, so it cannot be inserted later."""
    chat = ChatRoom()
    assert not chat.ask(send(MEMBER, key="c1")).repeated
    assert chat.ask(send(MEMBER, key="c1"), is_resent=True).repeated
    assert_nothing_changed(chat.changes)


def test_lost_answer_is_fenced_too() -> None:
    """Another gateway may have sent the later command, so the first copy of the earlier one may still be on its way."""
    chat = ChatRoom()
    early, late = send(MEMBER), send(MEMBER)
    chat.ask(late)
    chat.state.stored[late.id] = chat.changes.entries[0]
    again = [PendingCommand(command, is_resent=True, may_land_later=True) for command in (early, late)]
    changes = decide(again, chat.states, TERM, NOW_MS)
    assert isinstance(changes.answers[0], Refusal)
    assert [entry.kind for entry in changes.entries] == [EntryKind.VOID]


def test_looked_up_repeat_of_a_message_deleted_in_its_batch_shows_no_text() -> None:
    chat = ChatRoom()
    chat.ask(send(MEMBER, key="c1", text="a secret tip"))
    stored = chat.changes.entries[0].message
    assert stored is not None
    chat.state.messages[stored.id] = chat.state.repeats[MEMBER, "c1"] = stored
    deletion = DeleteMessage(**head(MEMBER), room_id=ROOM, message_id=stored.id)
    changes = decide([PendingCommand(one) for one in (deletion, send(MEMBER, key="c1"))], chat.states, TERM, NOW_MS)
    assert "a secret tip" not in str(changes.answers)


def test_repeat_is_recognised_by_messages_loaded_for_its_batch() -> None:
    chat = ChatRoom()
    sent = chat.ask(send(MEMBER, key="c1")).message
    chat.state.recent = RecentMessages(max_bytes=0)
    stored = chat.changes.entries[0].message
    assert stored is not None
    chat.state.repeats[MEMBER, "c1"] = stored
    again = chat.ask(send(MEMBER, key="c1"))
    assert (again.repeated, again.message.seq) == (True, sent.seq)


def test_messages_of_a_failed_commit_are_forgotten_and_others_kept() -> None:
    chat = ChatRoom()
    chat.ask(send(MEMBER, key="kept"))
    chat.state.recent.keep_uncommitted()
    chat.ask(send(MEMBER, key="lost"))
    chat.state.recent.forget_uncommitted()
    assert chat.ask(send(MEMBER, key="kept")).repeated
    assert not chat.ask(send(MEMBER, key="lost")).repeated


def test_recent_messages_are_bounded_and_keep_newest() -> None:
    chat = ChatRoom()
    chat.state.recent = RecentMessages(max_count=3, max_bytes=1000)
    for number in range(4):
        chat.ask(send(MEMBER, key=f"c{number}"))
    assert len(chat.state.recent) == 3
    assert chat.ask(send(MEMBER, key="c3")).repeated
    assert not chat.ask(send(MEMBER, key="c0")).repeated
    chat.state.recent = RecentMessages(max_count=3, max_bytes=0)
    chat.ask(send(MEMBER, key="d"))
    assert len(chat.state.recent) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_expired_command_is_skipped(command: str) -> None:
    chat = ChatRoom()
    assert chat.ask(COMMANDS[command](CREATOR), expired=True) is None
    assert_nothing_changed(chat.changes)


def test_refused_command_is_not_decided_after_a_later_one_of_its_user() -> None:
    chat = ChatRoom("private")
    early = on_room(LeaveRoom, STRANGER)
    assert chat.refused(early) is NOT_FOUND
    chat.ask(on_room(AddMember, CREATOR, user_id=STRANGER))
    late = send(STRANGER)
    chat.ask(late)
    chat.state.stored = dict(chat.log)
    again = [PendingCommand(command, is_resent=True) for command in (early, late)]
    answers = decide(again, chat.states, TERM, NOW_MS).answers
    assert isinstance(answers[0], Refusal)
    assert answers[0].code is ErrorCode.UNAVAILABLE
    assert isinstance(answers[1], Sent)
    assert STRANGER in chat.joined()


def test_expired_message_that_is_not_stored_stays_unsent() -> None:
    chat = ChatRoom()
    assert chat.ask(send(MEMBER), expired=True, is_resent=True, may_land_later=True) is None
    assert [entry.kind for entry in chat.changes.entries] == [EntryKind.VOID]
    assert chat.room.last_seq == 0


# Direct messages ----------------------------------------------------------------------------------------------------

DIRECT = direct_room_id("ann", "bob")


def direct(user_id: str, other: str, key: str | None = None) -> SendDirect:
    return SendDirect(
        **head(user_id),
        room_id=DIRECT,
        message_id=f"msg_{next(numbers)}",
        to_user_id=other,
        message="psst",
        client_message_id=key,
    )


def ask_direct(states: dict[str, RoomState], command: AnyRoomCommand, **circumstances: Any) -> tuple[Any, Changes]:
    state = states.setdefault(DIRECT, RoomState(None))
    for user_id in users_of(command):
        state.members.setdefault(user_id, None)
    changes = decide([PendingCommand(command, **circumstances)], states, TERM, NOW_MS)
    return changes.answers[0], changes


def test_direct_message_makes_room_of_pair() -> None:
    states: dict[str, RoomState] = {}
    first, changes = ask_direct(states, direct("ann", "bob"))
    assert [(item.channel, item.kind, item.position, item.key) for item in deliveries_in(changes, ("ann", "bob"))] == [
        (user_channel("ann"), DeliveryKind.DIRECT, 1, DIRECT),
        (user_channel("bob"), DeliveryKind.DIRECT, 1, DIRECT),
    ]
    second, changes = ask_direct(states, direct("bob", "ann"))
    assert (first.message.seq, second.message.seq) == (1, 2)
    assert second.message.chatroom_id == first.message.chatroom_id == DIRECT
    room = states[DIRECT].room
    assert room is not None
    assert (room.member_count, room.type, room.direct) == (2, RoomType.PRIVATE, ("ann", "bob"))


def test_direct_message_above_rate_limit_makes_no_room() -> None:
    states: dict[str, RoomState] = {}
    answer, changes = ask_direct(states, direct("ann", "bob"), refusal=SLOWER)
    assert answer.code is ErrorCode.RATE_LIMITED
    assert_nothing_changed(changes)
    assert states[DIRECT].room is None


def test_direct_room_cannot_be_changed() -> None:
    states: dict[str, RoomState] = {}
    ask_direct(states, direct("ann", "bob"))
    codes: dict[str, set[ErrorCode]] = {}
    for user in ("ann", ADMIN, "eve"):
        managing: list[AnyRoomCommand] = [
            UpdateRoom(**head(user), room_id=DIRECT, name="x"),
            DeleteRoom(**head(user), room_id=DIRECT),
            AddMember(**head(user), room_id=DIRECT, user_id="eve"),
            RemoveMember(**head(user), room_id=DIRECT, user_id="bob"),
            LeaveRoom(**head(user), room_id=DIRECT),
        ]
        for command in managing:
            answer, changes = ask_direct(states, command)
            assert isinstance(answer, Refusal)
            assert_nothing_changed(changes)
            codes.setdefault(user, set()).add(answer.code)
    assert codes == {"ann": {FORBIDDEN}, ADMIN: {NOT_FOUND}, "eve": {NOT_FOUND}}
    message = SendMessage(**head("eve"), room_id=DIRECT, message_id="msg_x", message="m")
    assert ask_direct(states, message)[0].code is NOT_FOUND


# Read marks and typing ----------------------------------------------------------------------------------------------


def test_read_mark_moves_forward_only_and_is_announced_once() -> None:
    chat = ChatRoom()
    for _ in range(5):
        chat.ask(send(CREATOR))
    answer = chat.ask(on_room(MarkRead, MEMBER, seq=3, session_id="s1"))
    assert answer == ReadMark(chatroom_id=ROOM, user_id=MEMBER, seq=3)
    mark = {"type": "chat:read", "data": {"chatroomId": ROOM, "userId": MEMBER, "seq": 3}}
    assert chat.deliveries(TRANSIENT) == [(user_channel(MEMBER), "s1", mark), (room_channel(ROOM), MEMBER, mark)]
    assert chat.ask(on_room(MarkRead, MEMBER, seq=2)).seq == 3
    assert_nothing_changed(chat.changes)


def test_read_mark_beyond_last_message_is_refused() -> None:
    chat = ChatRoom()
    assert chat.refused(on_room(MarkRead, MEMBER, seq=1)) is ErrorCode.VALIDATION


def test_large_room_does_not_broadcast_read_marks() -> None:
    chat = ChatRoom(members=tuple(f"u{number}" for number in range(100)))
    chat.ask(send(CREATOR))
    chat.ask(on_room(MarkRead, "u1", seq=1))
    assert chat.room.member_count == 101
    assert [channel for channel, _, _ in chat.deliveries()] == [user_channel("u1")]


def test_typing_only_checks_permission() -> None:
    chat = ChatRoom()
    answer = chat.ask(on_room(SetTyping, MEMBER, is_typing=True))
    assert answer == TypingMark(chatroom_id=ROOM, user_id=MEMBER, is_typing=True)
    assert_nothing_changed(chat.changes)


def test_active_now_is_loaded_for_answers_that_show_it() -> None:
    shown = {name for name, make in COMMANDS.items() if requirements_of(make(CREATOR)).active_now}
    assert shown == {"subscribe", "join", "leave", "update", "add", "remove"}


# Any interleaving ---------------------------------------------------------------------------------------------------


class DecisionCrash(Exception):
    """The process dies here."""


class RevConflict(Exception):
    """Another writer has appended since this one read the log."""


class MemoryLog:
    """The logs of rooms, under the rules of the unique indexes."""

    def __init__(self) -> None:
        self.entries: dict[str, list[LogEntry]] = {}

    def append(self, entry: LogEntry) -> None:
        log = self.entries.setdefault(entry.room_id, [])
        if entry.rev != len(log) + 1:
            assert entry.rev <= len(log), "a hole in the log"
            raise RevConflict
        assert all(entry.id != other.id for other in log), "a command stored twice"
        log.append(entry)

    def state(self, room_id: str) -> RoomState:
        """Return a room as its log shows it."""
        state = RoomState(None)
        for entry in self.entries.get(room_id, []):
            state.room = apply(entry, state.room)
            for effect in entry.members:
                state.members[effect.user_id] = member_of(room_id, effect)
            if entry.message is not None:
                state.recent.remember(entry.message)
        return state


class Writer:
    """One owner: it keeps its state, decides, appends, delivers, and may die before any single step."""

    def __init__(self, log: MemoryLog, delivered: list[Delivery]) -> None:
        self.log = log
        self.delivered = delivered
        self.states: dict[str, RoomState] = {}
        self.steps_left: int | None = None

    def step(self) -> None:
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise DecisionCrash
            self.steps_left -= 1

    def load(self, commands: list[Any]) -> dict[str, RoomState]:
        for command in commands:
            if command.room_id not in self.states:
                self.states[command.room_id] = self.log.state(command.room_id)
            state = self.states[command.room_id]
            state.stored = {entry.id: entry for entry in self.log.entries.get(command.room_id, [])}
            for user_id in users_of(command):
                state.members.setdefault(user_id, None)
                state.presence[user_id] = PresenceView(user_id=user_id, status="offline", last_seen_at=None)
        return {command.room_id: self.states[command.room_id] for command in commands}

    def commit(self, commands: list[Any], *, is_resent: bool, limited: set[str]) -> list[Any]:
        for _ in range(2):
            states = self.load(commands)
            asked = [
                PendingCommand(item, is_resent, is_resent, refusal=SLOWER if item.id in limited else None)
                for item in commands
            ]
            changes = decide(asked, states, TERM, NOW_MS)
            try:
                for entry in changes.entries:
                    self.step()
                    self.log.append(entry)
            except RevConflict:
                self.states.clear()
                continue
            for entry in [*changes.found.values(), *changes.entries]:
                room = states[entry.room_id].room
                for delivery in deliveries_of(entry, None if room is None else room.direct):
                    self.step()
                    self.delivered.append(delivery)
            return changes.answers
        raise AssertionError("only one other writer exists")


USERS = ["creator", "ann", "bob", "admin"]
users = st.sampled_from(USERS)
keys = st.none() | st.sampled_from(["c1", "c2"])
drawn_commands = st.one_of(
    st.tuples(st.just("send"), users, keys),
    st.tuples(st.just("send"), users, keys),
    st.tuples(st.just("limited send"), users, keys),
    st.tuples(st.just("direct"), st.permutations(["ann", "bob"]), keys),
    st.tuples(st.sampled_from(["create", "join", "leave", "subscribe", "typing", "delete"]), users, st.none()),
    st.tuples(st.sampled_from(["create", "join", "leave"]), users, st.none()),
    st.tuples(st.sampled_from(["add", "remove"]), users, users),
    st.tuples(st.just("role"), users, st.tuples(users, st.sampled_from(list(Role)))),
    st.tuples(st.just("read"), users, st.integers(0, 5)),
    st.tuples(st.just("update"), users, st.sampled_from(["public", "private", "group"])),
)
batches = st.lists(
    st.tuples(
        st.lists(drawn_commands, min_size=1, max_size=6),
        st.none() | st.integers(0, 20),  # the write before which it dies
        st.sampled_from(["no repeat", "again", "again by another writer"]),
    ),
    max_size=10,
)


def build(drawn: tuple[str, Any, Any]) -> Any:
    kind, user, detail = drawn
    match kind:
        case "send" | "limited send":
            return send(user, key=detail)
        case "direct":
            return direct(user[0], user[1], key=detail)
        case "create":
            return on_room(CreateRoom, user, name="Gold", description="", type="group", member_ids=("ann", user))
        case "join" | "leave" | "subscribe" | "delete":
            kinds = {"join": JoinRoom, "leave": LeaveRoom, "subscribe": SubscribeRoom, "delete": DeleteRoom}
            return on_room(kinds[kind], user)
        case "typing":
            return on_room(SetTyping, user, is_typing=True)
        case "add" | "remove":
            return on_room(AddMember if kind == "add" else RemoveMember, user, user_id=detail)
        case "role":
            return on_room(AddMember, user, user_id=detail[0], role=detail[1].value)
        case "read":
            return on_room(MarkRead, user, seq=detail)
        case _:
            return on_room(UpdateRoom, user, type=detail)


def check_room(log: MemoryLog, delivered: list[Delivery], room_id: str) -> None:
    """Check for gaps, repeats and order in the log and on the wire, and the member count."""
    entries = log.entries.get(room_id, [])
    assert [entry.rev for entry in entries] == list(range(1, len(entries) + 1))
    messages = [entry.message for entry in entries if entry.message is not None]
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    state = log.state(room_id)
    if state.room is None:
        return
    assert state.room.last_seq == len(messages)
    members = [member for member in state.members.values() if member is not None]
    assert state.room.member_count == sum(member.is_joined for member in members)
    creators = [member.user_id for member in members if member.is_joined and member.role is Role.CREATOR]
    assert creators == ([state.room.creator_id] if state.room.member_count else [])
    assert all(0 <= member.read_seq <= state.room.last_seq for member in members)
    room = state.room
    channels = [room_channel(room_id)] if room.direct is None else [user_channel(user) for user in room.direct]
    frames: dict[tuple[str, int], set[bytes]] = {}
    for delivery in delivered:
        if (
            delivery.kind in (ORDERED, DeliveryKind.DIRECT)
            and delivery.channel in channels
            and delivery.key in ("", room_id)
        ):
            frames.setdefault((delivery.channel, delivery.position), set()).add(delivery.frame)
    assert frames.keys() <= {(channel, entry.rev) for channel in channels for entry in entries}
    assert all(len(same) == 1 for same in frames.values()), "two frames under one rev"


@given(batches)
def test_crashes_and_resent_commands_keep_room_consistent(
    drawn: list[tuple[list[tuple[str, Any, Any]], int | None, str]],
) -> None:
    log, delivered = MemoryLog(), list[Delivery]()
    writer = Writer(log, delivered)
    writer.commit([build(("create", "creator", None))], is_resent=False, limited=set())
    acked: dict[str, tuple[str, int]] = {}
    by_key: dict[tuple[str, str, str], str] = {}
    refused: set[str] = set()
    for batch, crash_at, repeat in drawn:
        commands = [build(item) for item in batch]
        limited = {command.id for command, item in zip(commands, batch, strict=True) if item[0] == "limited send"}
        stale = writer
        writer.steps_left = crash_at
        try:
            answers = writer.commit(commands, is_resent=False, limited=limited)
        except DecisionCrash:
            stale = Writer(log, delivered)
            writer = Writer(log, delivered)
            answers = writer.commit(commands, is_resent=True, limited=limited)
        writer.steps_left = None
        if repeat != "no repeat":  # answered, but the answers were lost
            if repeat == "again by another writer":
                writer = Writer(log, delivered)
            writer.commit(commands, is_resent=True, limited=limited)
        if repeat == "again by another writer":
            stale.commit([build(("join", "bob", None))], is_resent=False, limited=set())  # it does not know yet
            writer.states.clear()
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, Sent):
                message = answer.message
                acked[message.id] = (message.chatroom_id, message.seq)
                assert message.id == command.message_id or answer.repeated
                if command.client_message_id is not None:
                    key = (command.room_id, command.caller.user_id, command.client_message_id)
                    assert by_key.setdefault(key, message.id) == message.id, "one clientMessageId, two messages"
            elif (
                isinstance(answer, Refusal) and repeat == "no repeat" and isinstance(command, SendMessage | SendDirect)
            ):
                refused.add(command.message_id)
        for room_id in (ROOM, DIRECT):
            check_room(log, delivered, room_id)
    entries = [entry for room in log.entries.values() for entry in room]
    stored = {entry.message.id: (entry.room_id, entry.message.seq) for entry in entries if entry.message is not None}
    assert acked.items() <= stored.items(), "acked, and not in the history"
    assert not refused & stored.keys(), "refused, and in the history"
