"""Decisions on stored messages: permissions, changes already in effect, and reactions that share an entry."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.change_frames import as_current, change_frame
from chat_service.rooms.changes import Edit, Reactions
from chat_service.rooms.decision import Changes, PendingCommand, RoomState, Rules, Toggle
from chat_service.rooms.decisions import decide
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.message import Message
from chat_service.rooms.room import Member, Role, Room, RoomType
from shared.commands.chat import (
    AnyRoomCommand,
    Changed,
    DeleteMessage,
    EditMessage,
    JoinRoom,
    PinMessage,
    React,
    SendMessage,
    Sent,
    SubscribeRoom,
)
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.message_parts import Attachment, MessageExtras, ReactionCount
from shared.protocol.server_frames import UserProfile

ROOM, NOW_MS, WINDOW_MS = "room_1", 1_800_000_000_000, 60_000
THUMB = "👍"
numbers = itertools.count(1)


def message(id_: str = "msg_1", by: str = "ann", seq: int = 1, **fields: Any) -> Message:
    values: dict[str, Any] = {"text": "EUR up", "client_message_id": None, "created_at_ms": NOW_MS - 1_000, **fields}
    return Message(id=id_, room_id=ROOM, seq=seq, rev=seq + 1, user_id=by, user=UserProfile(), **values)


class Desk:
    """A room of ann (its creator), mod (a moderator), ben and cat, with one message of ann."""

    def __init__(self, kind: RoomType = RoomType.PUBLIC, *messages: Message) -> None:
        self.room = Room(
            id=ROOM,
            name="Gold",
            description="",
            type=kind,
            created_by="ann",
            creator_id="ann",
            created_at_ms=0,
            active_at_ms=0,
            last_seq=9,
            rev=20,
            member_count=4,
        )
        roles = {"ann": Role.CREATOR, "mod": Role.MODERATOR, "ben": Role.MEMBER, "cat": Role.MEMBER}
        members: dict[str, Member | None] = {
            user: Member(
                room_id=ROOM,
                user_id=user,
                role=role,
                joined_at_ms=0,
                role_since_ms=0,
                read_seq=0,
                profile=UserProfile(),
            )
            for user, role in roles.items()
        }
        self.state = RoomState(self.room, {**members, "eve": None, "root": None})
        self.state.messages = {one.id: one for one in (messages or (message(),))}
        self.changes = Changes()

    def ask_all(self, *commands: AnyRoomCommand) -> list[Any]:
        """Decide a batch and return the answers."""
        pending = [PendingCommand(command) for command in commands]
        self.changes = decide(pending, {ROOM: self.state}, 1, NOW_MS, Rules(edit_window_ms=WINDOW_MS))
        return list(self.changes.answers)

    def ask(self, command: AnyRoomCommand) -> Any:
        (answer,) = self.ask_all(command)
        return answer

    def refused(self, command: AnyRoomCommand) -> ErrorCode:
        answer = self.ask(command)
        assert isinstance(answer, Refusal), answer
        assert self.changes.entries == []
        return answer.code

    @property
    def entry(self) -> LogEntry:
        (entry,) = self.changes.entries
        return entry


def command(kind: type[Any], by: str, message_id: str = "msg_1", **fields: Any) -> Any:
    caller = Caller(user_id=by, is_admin=by == "root")
    id_ = f"cmd_{next(numbers)}"
    return kind(id=id_, caller=caller, room_id=ROOM, expires_at_monotonic_ms=0, message_id=message_id, **fields)


def react(by: str, emoji: str = THUMB, message_id: str = "msg_1", *, removes: bool = False) -> React:
    made: React = command(React, by, message_id, emoji=emoji, is_removal=removes)
    return made


@pytest.mark.parametrize(
    "change",
    [
        command(EditMessage, "ann", message="EUR down"),
        command(DeleteMessage, "ann"),
        react("ben"),
        command(PinMessage, "mod"),
    ],
    ids=lambda change: type(change).__name__,
)
def test_head_of_room_names_the_last_change(change: AnyRoomCommand) -> None:
    desk = Desk()
    desk.ask(change)
    subscribe = SubscribeRoom(id="cmd_s", caller=Caller(user_id="ben"), room_id=ROOM, expires_at_monotonic_ms=0)
    head = desk.ask(subscribe)
    assert (head.rev, head.changed_rev) == (21, 21)


# Editing --------------------------------------------------------------------------------------------------------------


def test_author_edits_within_the_window_and_mentions_are_kept() -> None:
    desk = Desk(RoomType.PUBLIC, message(extras=MessageExtras(mentions=("ben",))))
    answer = desk.ask(command(EditMessage, "ann", message="EUR down"))
    assert answer == Changed(chatroom_id=ROOM, message_id="msg_1", rev=21)
    change = desk.entry.change
    assert isinstance(change, Edit)
    assert (change.text, change.mentions, change.unmentioned) == ("EUR down", ("ben",), ())
    assert desk.ask(command(EditMessage, "ann", message="EUR down")) == answer
    assert desk.changes.entries == []


@pytest.mark.parametrize("by", ["ben", "mod", "root"])
def test_nobody_edits_a_message_of_others(by: str) -> None:
    desk = Desk(RoomType.PUBLIC, message(by="cat"))
    assert desk.refused(command(EditMessage, by, message="mine")) is ErrorCode.FORBIDDEN


def test_edit_after_the_window_is_refused_but_a_repeat_is_not() -> None:
    old = message(created_at_ms=NOW_MS - WINDOW_MS)
    desk = Desk(RoomType.PUBLIC, old)
    assert desk.refused(command(EditMessage, "ann", message="late")) is ErrorCode.EDIT_WINDOW
    assert desk.ask(command(EditMessage, "ann", message=old.text)).rev == old.rev


def test_text_may_be_removed_from_a_message_with_attachments_only() -> None:
    link = MessageExtras(attachments=(Attachment(kind="link", url="https://example.com"),))
    desk = Desk(RoomType.PUBLIC, message(), message("msg_2", seq=2, extras=link))
    assert desk.refused(command(EditMessage, "ann", message="")) is ErrorCode.VALIDATION
    assert desk.ask(command(EditMessage, "ann", "msg_2", message="")).rev == 21


def test_second_edit_names_the_first_whose_text_is_erased() -> None:
    desk = Desk()
    first = desk.ask(command(EditMessage, "ann", message="one"))
    desk.ask(command(EditMessage, "ann", message="two"))
    change = desk.entry.change
    assert isinstance(change, Edit)
    assert change.previous_rev == first.rev


# Deleting -------------------------------------------------------------------------------------------------------------

DELETIONS = [
    ("ann", "cat", True),
    ("mod", "cat", True),
    ("mod", "gone", True),
    ("mod", "ann", False),
    ("ben", "ben", True),
    ("ben", "cat", False),
    ("root", "ann", True),
    ("eve", "cat", False),
]


@pytest.mark.parametrize(("by", "author", "is_allowed"), DELETIONS)
def test_rank_decides_who_deletes(by: str, author: str, is_allowed: bool) -> None:
    desk = Desk(RoomType.PUBLIC, message(by=author))
    if is_allowed:
        assert desk.ask(command(DeleteMessage, by)).rev == 21
        assert desk.entry.kind is EntryKind.ERASED
    else:
        assert desk.refused(command(DeleteMessage, by)) is ErrorCode.FORBIDDEN


def test_tombstone_takes_no_change_and_is_deleted_once() -> None:
    desk = Desk()
    first = desk.ask(command(DeleteMessage, "ann"))
    assert desk.ask(command(DeleteMessage, "ann")) == first
    for late in (
        command(EditMessage, "ann", message="x"),
        react("ben"),
        command(PinMessage, "ann"),
    ):
        assert desk.refused(late) is ErrorCode.CONFLICT
    sent = desk.ask(command(SendMessage, "ben", "msg_9", message="why?", extras=MessageExtras(reply_to="msg_1")))
    assert isinstance(sent, Sent)
    assert sent.message.reply_to
    assert sent.message.reply_to.message == ""


# Reactions ------------------------------------------------------------------------------------------------------------


def test_reactions_in_a_row_share_an_entry() -> None:
    desk = Desk()
    answers = desk.ask_all(react("ann"), react("ben"), react("eve", ":up:"), react("ben", removes=True))
    assert {answer.rev for answer in answers} == {21}
    change = desk.entry.change
    assert isinstance(change, Reactions)
    assert len(change.command_ids) == 4
    assert change.counts == (ReactionCount(emoji=THUMB, count=1), ReactionCount(emoji=":up:", count=1))
    assert [effect.user_id for effect in desk.entry.members] == ["eve"]
    assert desk.entry.member_count == desk.room.member_count == 5


def test_interleaved_command_splits_reactions() -> None:
    desk = Desk(RoomType.PUBLIC, message(), message("msg_2", seq=2))
    join = JoinRoom(id="cmd_join", caller=Caller(user_id="ann"), room_id=ROOM, expires_at_monotonic_ms=0)
    answers = desk.ask_all(react("ann"), react("ben", message_id="msg_2"), react("ben"), join, react("cat"))
    assert [answer.rev for answer in answers if isinstance(answer, Changed)] == [21, 22, 23, 24]


def test_reaction_that_makes_a_creator_takes_an_entry_of_its_own() -> None:
    desk = Desk()
    desk.state.members = dict.fromkeys(desk.state.members)
    desk.room.member_count = 0
    desk.state.messages["msg_1"] = message(reactions=(ReactionCount(emoji=THUMB, count=1),))
    desk.state.reactions["msg_1", "ben", THUMB] = Toggle(is_active=True, rev=12)
    answers = desk.ask_all(react("ben", removes=True), react("cat"), react("eve"))
    assert [answer.rev for answer in answers] == [21, 22, 22]
    assert desk.room.creator_id == "cat"
    stored = [entry.settings for entry in desk.changes.entries]
    assert stored[0] is None
    assert stored[1] is not None and stored[1].creator_id == "cat"


def test_reaction_in_effect_is_answered_with_its_rev() -> None:
    desk = Desk()
    desk.state.reactions["msg_1", "ben", THUMB] = Toggle(is_active=True, rev=12)
    assert desk.ask(react("ben")).rev == 12
    assert desk.ask(react("cat", removes=True)).rev == 2
    assert desk.changes.entries == []


reacting = st.lists(
    st.tuples(st.sampled_from(["ann", "ben", "cat"]), st.sampled_from("ABC"), st.booleans()), max_size=30
)


@given(acts=reacting, cuts=st.sets(st.integers(0, 29)))
def test_counts_follow_from_the_users_however_batches_fall(acts: list[tuple[str, str, bool]], cuts: set[int]) -> None:
    desk, reacted = Desk(), set[tuple[str, str]]()
    batches: list[list[React]] = [[]]
    for index, (user, emoji, removes) in enumerate(acts):
        batches[-1].append(react(user, f":{emoji}:", removes=removes))
        (reacted.discard if removes else reacted.add)((user, emoji))
        if index in cuts:
            batches.append([])
    for batch in batches:
        desk.ask_all(*batch)
    now = desk.state.messages["msg_1"]
    assert now is not None
    counted = {item.emoji.strip(":"): item.count for item in now.reactions}
    assert counted == {kind: n for kind in "ABC" if (n := sum(emoji == kind for _, emoji in reacted))}


def test_message_takes_twenty_kinds_of_reactions() -> None:
    desk = Desk()
    for number in range(20):
        assert isinstance(desk.ask(react("ann", f":k{number}:")), Changed)
    assert desk.refused(react("ben", ":one_more:")) is ErrorCode.CONFLICT
    assert isinstance(desk.ask(react("ben", ":k3:")), Changed)


# Pins -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "is_allowed"), [("ann", True), ("mod", True), ("root", True), ("ben", False)])
def test_moderators_and_above_pin(by: str, is_allowed: bool) -> None:
    desk = Desk()
    if is_allowed:
        assert desk.ask(command(PinMessage, by)).rev == 21
        assert desk.ask(command(PinMessage, by)).rev == 21
        assert desk.ask(command(PinMessage, by, is_removal=True)).rev == 22
    else:
        assert desk.refused(command(PinMessage, by)) is ErrorCode.FORBIDDEN


def test_room_takes_fifty_pins() -> None:
    desk = Desk()
    desk.state.pins = {f"msg_p{number}": Toggle(is_active=True, rev=3) for number in range(50)}
    assert desk.refused(command(PinMessage, "ann")) is ErrorCode.CONFLICT


# Replays --------------------------------------------------------------------------------------------------------------


def test_replay_shows_current_state_and_only_the_deletion() -> None:
    desk = Desk()
    desk.ask(command(EditMessage, "ann", message="one"))
    first = desk.entry
    desk.ask(command(EditMessage, "ann", message="two"))
    now = desk.state.messages["msg_1"]
    assert now is not None
    shown = as_current(first, {"msg_1": now})
    assert shown.change is not None
    assert json.loads(change_frame(shown, shown.change))["data"]["message"] == "two"
    desk.ask(command(DeleteMessage, "ann"))
    gone = desk.state.messages["msg_1"]
    assert gone is not None
    assert as_current(first, {"msg_1": gone}).change is None
    assert as_current(desk.entry, {"msg_1": gone}) == desk.entry
