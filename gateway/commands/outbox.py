"""Room commands by partition: one body in flight to each, while the next commands gather. Pure.

         add                due                  answered
    ───────────> WAITING ─────────> IN FLIGHT ─────────────> gone
                    │                 │   ^
            expired │                 │   └── lost, moved or unanswered: sent again, marked as resent
                    v                 │
               UNAVAILABLE <──────────┘ expired, and the time limit of one database call has passed

Order: a body leaves only after the previous one was answered, or all its commands have expired and can no longer be
committed. So the commands of one socket reach the log in the order in which the socket sent them, even if bodies are
lost, repeated or moved.

Bound: 500 commands and 1 MB wait for each partition, fewer while its owner answers late (`backlog_limit`). Beyond that
`has_room` and `add` return False, and nothing has been sent.
"""

from collections import deque
from typing import NamedTuple

from gateway.commands.backlog_limit import BacklogLimit
from shared.commands.body import COMMANDS_BODY_MAX_BYTES, BodyHead, encode_body

SILENCE_MS = 1_500  # without an answer for this long, the body or its answer counts as lost
DATABASE_CALL_MS = 2_000  # a commit may go on for this long after its command has expired
RESEND_PAUSE_MS = 50


class Route(NamedTuple):
    """The process that decides the commands of a partition, its queue, and its fencing token."""

    queue: str
    term: int


class Sending(NamedTuple):
    """One AMQP message to send."""

    queue: str
    body: bytes


class _Command(NamedTuple):
    id: str
    line: bytes
    expires_at_ms: int


class _Unanswered:
    """A body in flight. `sent_at_ms` is None while it waits to be sent again."""

    __slots__ = ("commands", "due_at_ms", "is_resent", "number", "sent_at_ms", "term", "unexpired")

    def __init__(self, number: int, commands: list[_Command]) -> None:
        self.number = number
        self.commands = commands
        self.unexpired = deque(commands)
        self.term = 0
        self.sent_at_ms: int | None = None
        self.due_at_ms = 0
        self.is_resent = False

    def expire(self, by_ms: int) -> list[str]:
        """Remove the commands that expired by then from `unexpired`, and return their ids."""
        expired: list[str] = []
        while self.unexpired and self.unexpired[0].expires_at_ms <= by_ms:
            expired.append(self.unexpired.popleft().id)
        return expired


class _PartitionOutbox:
    __slots__ = ("in_flight", "limit", "owner", "size_bytes", "waiting")

    def __init__(self) -> None:
        self.limit = BacklogLimit()
        self.owner: Route | None = None
        self.waiting: deque[_Command] = deque()
        self.size_bytes = 0
        self.in_flight: _Unanswered | None = None


class CommandOutbox:
    """The commands of one gateway process. Times are milliseconds of one monotonic clock."""

    def __init__(self, gateway: str, partitions: int) -> None:
        self._gateway = gateway
        self._partitions = [_PartitionOutbox() for _ in range(partitions)]
        self._number = 0

    def has_room(self, partition: int) -> bool:
        """Return whether one more command may wait for the partition, by count; `add` also checks bytes."""
        outbox = self._partitions[partition]
        return len(outbox.waiting) < outbox.limit.value

    def add(self, partition: int, command_id: str, line: bytes, expires_at_ms: int) -> bool:
        """Queue a command. Return False, and queue nothing, when the partition's bound is reached."""
        outbox = self._partitions[partition]
        if not self.has_room(partition) or outbox.size_bytes + len(line) > COMMANDS_BODY_MAX_BYTES:
            return False
        outbox.waiting.append(_Command(command_id, line, expires_at_ms))
        outbox.size_bytes += len(line)
        return True

    def learn_owner(self, partition: int, owner: Route, now_ms: int) -> None:
        """Note an owner, unless one with a newer term is known.

        A body in flight to the old owner is sent to the new one at once: the old one may be gone.
        """
        outbox = self._partitions[partition]
        if outbox.owner is not None and owner.term <= outbox.owner.term:
            return
        outbox.owner = owner
        if outbox.in_flight is not None and outbox.in_flight.sent_at_ms is not None:
            self._schedule_resend(outbox.in_flight, now_ms)

    def forget_owners(self) -> None:
        """Forget the owners and their terms: the database was restored, and its terms may be lower."""
        for outbox in self._partitions:
            outbox.owner = None

    def due(self, reply_to: str, now_ms: int) -> list[Sending]:
        """Return the bodies to send now, with `reply_to` as the queue for the answers."""
        sendings: list[Sending] = []
        for partition, outbox in enumerate(self._partitions):
            if outbox.owner is None:
                continue
            if outbox.in_flight is None and outbox.waiting:
                outbox.in_flight = self._next_body(outbox)
            body = outbox.in_flight
            if body is not None and body.sent_at_ms is None and body.due_at_ms <= now_ms:
                sendings.append(self._send(partition, outbox.owner, body, reply_to, now_ms))
        return sendings

    def is_in_flight_to(self, partition: int, term: int) -> bool:
        """Return whether the body in flight was last sent to the owner of this term."""
        body = self._partitions[partition].in_flight
        return body is not None and body.term == term

    def answered(self, partition: int, number: int, term: int, now_ms: int) -> list[str]:
        """Finish the body that was answered and return its commands' ids; none if it is not the one in flight."""
        outbox = self._partitions[partition]
        body = outbox.in_flight
        if body is None or body.number != number or body.term != term:
            return []
        outbox.in_flight = None
        if body.sent_at_ms is not None and not body.is_resent:
            outbox.limit.body_answered(len(body.commands), now_ms - body.sent_at_ms)
        return [command.id for command in body.commands]

    def moved(self, partition: int, number: int, term: int, now_ms: int) -> None:
        """Send a body again that an owner of `term` did not decide: at once to a newer owner, else after a pause."""
        outbox = self._partitions[partition]
        body = outbox.in_flight
        if body is None or body.number != number or body.term != term:
            return
        is_newer_known = outbox.owner is not None and outbox.owner.term > term
        self._schedule_resend(body, now_ms if is_newer_known else now_ms + RESEND_PAUSE_MS)

    def reconnected(self, now_ms: int) -> None:
        """Send everything in flight again: bodies and answers were lost with the connection."""
        for outbox in self._partitions:
            if outbox.in_flight is not None:
                self._schedule_resend(outbox.in_flight, now_ms)

    def tick(self, now_ms: int) -> list[str]:
        """Schedule unanswered bodies to be sent again, and return the ids of the commands that have failed.

        A command that was never sent fails when it expires. One that was sent may still be committed by a database
        call in progress, so its caller receives UNAVAILABLE only after the time limit of that call.
        """
        expired: list[str] = []
        for outbox in self._partitions:
            while outbox.waiting and outbox.waiting[0].expires_at_ms <= now_ms:
                command = outbox.waiting.popleft()
                outbox.size_bytes -= len(command.line)
                expired.append(command.id)
            body = outbox.in_flight
            if body is None:
                continue
            expired += body.expire(now_ms - DATABASE_CALL_MS)
            if not body.unexpired:
                outbox.in_flight = None
            elif body.sent_at_ms is not None and now_ms - body.sent_at_ms >= SILENCE_MS:
                self._schedule_resend(body, now_ms)
        return expired

    @property
    def is_idle(self) -> bool:
        """Return whether no command waits or is in flight."""
        return all(outbox.in_flight is None and not outbox.waiting for outbox in self._partitions)

    def _next_body(self, outbox: _PartitionOutbox) -> _Unanswered:
        self._number += 1
        commands = list(outbox.waiting)
        outbox.waiting.clear()
        outbox.size_bytes = 0
        return _Unanswered(self._number, commands)

    def _send(self, partition: int, owner: Route, body: _Unanswered, reply_to: str, now_ms: int) -> Sending:
        body.term, body.sent_at_ms = owner.term, now_ms
        head = BodyHead(
            gateway=self._gateway,
            number=body.number,
            partition=partition,
            term=owner.term,
            reply_to=reply_to,
            sent_at_monotonic_ms=now_ms,
            is_resent=body.is_resent,
        )
        return Sending(owner.queue, encode_body(head, [command.line for command in body.commands]))

    def _schedule_resend(self, body: _Unanswered, due_at_ms: int) -> None:
        body.sent_at_ms = None
        body.due_at_ms = due_at_ms
        body.is_resent = True
