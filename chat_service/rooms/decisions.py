"""The functional core of the chat writer: commands and known state in, entries and answers out. Pure.

The partition loads the data that `requirements_of` names, calls `decide`, and carries out the `Changes`. Commands are
decided in the order of arrival, each on the state after the previous one.

A resent command is answered from its entry and never decided again: otherwise a later removal could refuse a message
that is already stored. If it has no entry, it is decided now. If that makes no entry either, and another owner may have
got its first copy, a void entry of this term is added to its room before the answer: a stale owner may still hold that
copy, and can then no longer insert at that rev.
"""

from collections.abc import Mapping
from typing import assert_never

from chat_service.rooms import change_decisions, member_decisions, message_decisions, room_decisions
from chat_service.rooms.decision import (
    DEFAULT_RULES,
    Answer,
    Changes,
    Decision,
    PendingCommand,
    ReplyData,
    RoomState,
    Rules,
)
from chat_service.rooms.log import EntryKind, LogEntry, void_at
from chat_service.rooms.requirements import requirements_of
from chat_service.rooms.room import Room
from shared.commands.chat import (
    AddMember,
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
    SendDirect,
    SendMessage,
    SetTyping,
    SubscribeRoom,
    UpdateRoom,
)
from shared.errors import ErrorCode, Refusal

ANSWER_LOST = "the command was decided earlier without effect, and its answer was lost; send it again"


def decide(
    pending: list[PendingCommand], states: Mapping[str, RoomState], term: int, now_ms: int, rules: Rules = DEFAULT_RULES
) -> Changes:
    """Decide a batch and return its changes.

    `states` holds every room and member that the commands name; it is updated to the state after the batch.
    """
    changes = Changes()
    voided: set[str] = set()
    last_stored = _last_stored(pending, states)
    for index, item in enumerate(pending):
        state = states[item.command.room_id]
        decision = Decision(item, state, changes, now_ms, rules)
        # Entries are inserted in order. If a later command of the same user has one, this one was refused or changed
        # nothing; deciding it now would order it after the later one.
        if _is_resent_without_entry(item, state) and index < last_stored.get(_ordering_key_of(item), 0):
            changes.answers.append(Refusal(ErrorCode.UNAVAILABLE, ANSWER_LOST))
            _fence(item, state, changes, voided, term, now_ms)
            continue
        if not isinstance(item.command, React):
            changes.open_reactions.pop(item.command.room_id, None)
        answer = _answer(decision)
        changes.answers.append(answer)
        entry = decision.take_entry(term)
        if entry is not None:
            if entry.kind is EntryKind.REACTED:
                changes.open_reactions[entry.room_id] = len(changes.entries)
            changes.entries.append(entry)
        elif not decision.shares_entry:
            _fence(item, state, changes, voided, term, now_ms)
    return changes


def _fence(item: PendingCommand, state: RoomState, changes: Changes, voided: set[str], term: int, now_ms: int) -> None:
    """Add a void entry if a stale owner may still insert an earlier copy of a command that makes no entry now."""
    may_land = item.may_land_later and _is_resent_without_entry(item, state)
    if may_land and state.room is not None and state.room.id not in voided:
        voided.add(state.room.id)
        changes.open_reactions.pop(state.room.id, None)
        changes.entries.append(void_entry(state.room, term, now_ms))


def void_entry(room: Room, term: int, now_ms: int) -> LogEntry:
    """Return an entry that takes the next rev of the room and changes nothing else; advances the room to it."""
    room.rev += 1
    return void_at(room.id, room.rev, term, now_ms)


def _last_stored(pending: list[PendingCommand], states: Mapping[str, RoomState]) -> dict[tuple[str, str], int]:
    """Return, by room and user, the index of the last command that has an entry already."""
    stored = (
        (_ordering_key_of(item), index)
        for index, item in enumerate(pending)
        if item.command.id in states[item.command.room_id].stored
    )
    return dict(stored)


def _ordering_key_of(item: PendingCommand) -> tuple[str, str]:
    return item.command.room_id, item.command.caller.user_id


def _is_resent_without_entry(item: PendingCommand, state: RoomState) -> bool:
    """Return whether a resent command may make an entry and has none."""
    makes_entry = requirements_of(item.command).makes_entry
    return item.is_resent and makes_entry and item.command.id not in state.stored


def _answer(decision: Decision) -> Answer:
    pending = decision.pending
    stored = decision.state.stored.get(pending.command.id)
    if pending.expired and stored is None:
        return None
    try:
        if stored is not None:
            shown = decision.state.shown.get(stored.id, stored)
            decision.changes.found[shown.id] = shown
            return _answer_stored(decision, stored, shown)
        return _decide_one(decision)
    except Refusal as refusal:
        return refusal


def _decide_one(decision: Decision) -> ReplyData:
    command = decision.pending.command
    match command:
        case SendMessage():
            return message_decisions.send(decision, command)
        case SendDirect():
            return message_decisions.send_direct(decision, command)
        case EditMessage():
            return change_decisions.edit(decision, command)
        case DeleteMessage():
            return change_decisions.delete(decision, command)
        case React():
            return change_decisions.react(decision, command)
        case PinMessage():
            return change_decisions.pin(decision, command)
        case SubscribeRoom():
            return message_decisions.subscribe(decision)
        case MarkRead():
            return message_decisions.mark_read(decision, command)
        case SetTyping():
            return message_decisions.set_typing(decision, command)
        case CreateRoom():
            return room_decisions.create(decision, command)
        case UpdateRoom():
            return room_decisions.update(decision, command)
        case DeleteRoom():
            return room_decisions.delete(decision)
        case JoinRoom():
            return member_decisions.join(decision)
        case LeaveRoom():
            return member_decisions.leave(decision)
        case AddMember():
            return member_decisions.add(decision, command)
        case RemoveMember():
            return member_decisions.remove(decision, command)
        case _:
            assert_never(command)


def _answer_stored(decision: Decision, entry: LogEntry, shown: LogEntry) -> ReplyData:
    """Answer from the entry of an earlier copy.

    A change is read from `entry`, because `shown` lacks a change that a replay no longer shows.
    """
    command = decision.pending.command
    match command:
        case SendMessage() | SendDirect():
            return message_decisions.sent_before(shown)
        case EditMessage() | DeleteMessage() | React() | PinMessage():
            return change_decisions.changed_before(entry)
        case CreateRoom() | UpdateRoom() | JoinRoom() | LeaveRoom():
            return room_decisions.view_after(decision)
        case AddMember():
            return member_decisions.member_after(decision, entry, command)
        case DeleteRoom() | RemoveMember():
            return room_decisions.gone_after(command)
        case MarkRead() | SetTyping() | SubscribeRoom():
            return _decide_one(decision)
        case _:
            assert_never(command)
