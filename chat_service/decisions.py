"""The functional core of the chat writer: commands and known state in, changes out. Pure.

The partition loads what `requirements_of` names, calls `decide`, and carries the `Changes` out in the order of their
fields. Commands are decided in the order of their arrival, each on the state that the ones before it left.

Redelivery: a command that may have taken effect before is decided on the state on disk. A message found by its id is
delivered again under its seq; every other command is idempotent and is done again, its deliveries included.
"""

from collections.abc import Mapping
from typing import assert_never

from chat_service import message_decisions, room_decisions
from chat_service.decision import Answer, Changes, Decision, PendingCommand, ReplyData, RoomState
from shared.commands.chat import (
    AddMember,
    CreateRoom,
    DeleteRoom,
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
from shared.errors import Refusal


def decide(pending: list[PendingCommand], states: Mapping[str, RoomState], now_ms: int) -> Changes:
    """Decide a batch and return its changes.

    `states` holds every room and member that the commands name; it is updated to the state after the batch.
    """
    changes = Changes()
    for item in pending:
        changes.answers.append(_answer(Decision(item, states[item.command.room_id], changes, now_ms)))
    return changes


def _answer(decision: Decision) -> Answer:
    pending = decision.pending
    if pending.expired and not pending.redelivered:
        return None
    try:
        return _decide_one(decision)
    except Refusal as refusal:
        return None if pending.expired else refusal


def _decide_one(decision: Decision) -> ReplyData | None:
    command = decision.pending.command
    match command:
        case SendMessage():
            return message_decisions.send(decision, command)
        case SendDirect():
            return message_decisions.send_direct(decision, command)
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
            return room_decisions.join(decision)
        case LeaveRoom():
            return room_decisions.leave(decision)
        case AddMember():
            return room_decisions.add(decision, command)
        case RemoveMember():
            return room_decisions.remove(decision, command)
        case _:
            assert_never(command)
