"""Refunds to the commands of a batch, once they are answered. Pure.

Commands were charged for all that they might do. A charge that several commands share is refunded only if none of them
keeps it: a repeated message must not refund the join that the next command made.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from chat_service.partitions.rates import Charge, Costs, Rate
from chat_service.rooms.decision import Answer
from chat_service.rooms.log import LogEntry
from shared.commands.chat import Sent
from shared.errors import ErrorCode, Refusal


class ChargeOutcome(StrEnum):
    """The outcome of a command, which decides its refund."""

    UNKNOWN = "unknown"  # the command got no answer: it may have an entry
    FREE = "free"  # the command was a known repeat, already in effect, beyond a limit, or this service failed
    REFUSED = "refused"  # the room refused the command, which has cost a decision
    CHANGED = "changed"  # the command changed the room, but not its caller's membership
    MEMBERSHIP_CHANGED = "membership_changed"  # the command made its caller join or leave


class Settled(NamedTuple):
    """A command, what it was charged, and its outcome."""

    charge: Charge
    costs: Costs
    outcome: ChargeOutcome


def outcome_of(
    user_id: str, answer: Answer, limit: Refusal | None, entry: LogEntry | None, *, was_refused_by_log: bool = False
) -> ChargeOutcome:
    """Return the outcome of a user's command. `limit` is the refusal of its caller's limits, if it exceeds one.

    A repeat that only the log recognised has cost an insert and a reload of its batch's rooms, so it keeps its charge.
    """
    if answer is None:
        return ChargeOutcome.UNKNOWN
    if isinstance(answer, Refusal):
        is_free = answer is limit or answer.code in {ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL}
        return ChargeOutcome.FREE if is_free else ChargeOutcome.REFUSED
    if entry is None:
        is_costly = was_refused_by_log and isinstance(answer, Sent)
        return ChargeOutcome.CHANGED if is_costly else ChargeOutcome.FREE
    moves_caller = any(effect.user_id == user_id for effect in entry.members)
    return ChargeOutcome.MEMBERSHIP_CHANGED if moves_caller else ChargeOutcome.CHANGED


def refunds_of(settled: Sequence[Settled]) -> dict[Charge, list[Rate]]:
    """Return the charges to undo and their rates. All commands that share a charge must be in `settled`."""
    refundable: dict[tuple[Charge, Rate], None] = {}
    kept: set[tuple[Charge, Rate]] = set()
    for (user_id, command_id), costs, outcome in settled:
        for cost in costs:
            charged = Charge(user_id, cost.shared_id or command_id), cost.rate
            if _keeps(outcome, cost.rate):
                kept.add(charged)
            else:
                refundable[charged] = None
    refunds: dict[Charge, list[Rate]] = {}
    for charge, rate in refundable:
        if (charge, rate) not in kept:
            refunds.setdefault(charge, []).append(rate)
    return refunds


def _keeps(outcome: ChargeOutcome, rate: Rate) -> bool:
    match outcome:
        case ChargeOutcome.FREE:
            return False
        case ChargeOutcome.CHANGED:
            return rate is not Rate.JOINS
        case ChargeOutcome.UNKNOWN | ChargeOutcome.REFUSED | ChargeOutcome.MEMBERSHIP_CHANGED:
            return True
