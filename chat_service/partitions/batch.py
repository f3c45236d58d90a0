"""The bodies of commands that a partition works on, and the outcome of a batch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from chat_service.partitions.limits import Verdict
from chat_service.rooms.decision import Answer
from chat_service.rooms.log import LogEntry
from shared.bus.delivery import Delivery
from shared.commands.body import BodyHead
from shared.commands.chat import AnyRoomCommand
from shared.errors import Malformed, Refusal
from shared.protocol.validation import decode
from shared.telemetry import logs

log = logs.get(__name__)

_decoder = msgspec.json.Decoder(AnyRoomCommand)


@dataclass(slots=True, eq=False)
class Job:
    """One command of a body. It expires by this process's monotonic clock."""

    command: AnyRoomCommand
    expires_at_monotonic_ms: int
    is_resent: bool  # an entry that it made may be in the log: look it up
    may_land_later: bool  # a stale owner may still insert such an entry: the gateway has sent the body before
    # An earlier copy or attempt may have stored it: while that is unknown, it is left unanswered rather than refused.
    may_be_stored: bool
    was_refused_by_log: bool = False  # usually because its message repeats a stored one
    verdict: Verdict | None = None  # of its caller's limits; None until it is charged
    entry: LogEntry | None = None

    def is_expired(self, now_monotonic_ms: int) -> bool:
        """Return whether its sender has given up."""
        return self.expires_at_monotonic_ms <= now_monotonic_ms


@dataclass(slots=True, eq=False)
class Body:
    """A body that is not answered yet."""

    head: BodyHead
    jobs: list[Job]


class Outcome(NamedTuple):
    """The answers to the commands of a batch, in order, and the batch's deliveries."""

    answers: list[Answer]
    deliveries: list[Delivery]


def read_body(head: BodyHead, lines: Sequence[bytes], age_ms: int, now_monotonic_ms: int) -> Body:
    """Return a body that was sent `age_ms` ago, without its invalid lines."""
    jobs: list[Job] = []
    for line in lines:
        try:
            command: AnyRoomCommand = decode(line, _decoder)
        except (Malformed, Refusal) as error:
            log.error("bad_command_line", gateway=head.gateway, reason=str(error))
            continue
        ttl_ms = command.expires_at_monotonic_ms - head.sent_at_monotonic_ms - age_ms
        jobs.append(Job(command, now_monotonic_ms + ttl_ms, head.is_resent, head.is_resent, head.is_resent))
    return Body(head, jobs)


def are_all_expired(jobs: Collection[Job], now_monotonic_ms: int) -> bool:
    """Return whether all senders have given up."""
    return all(job.is_expired(now_monotonic_ms) for job in jobs)


def treat_as_resent(jobs: Collection[Job]) -> None:
    """Have the commands looked up in the log before they are decided again."""
    for job in jobs:
        job.is_resent = True
