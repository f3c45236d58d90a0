"""One partition under one term: decides the commands of its rooms and commits them, a batch at a time.

    body ──> dedup ──> batch ──> load ──> charge limits ──> decide (pure) ──> commit to the log
                                                                                 │
        answers and deliveries in one publish <── records that effects change <──┘
                        │
        a second later: the heads of the active rooms; five seconds later: the write-behind

Whatever fails, the log decides. After a refused commit, or one with an unknown outcome, the partition drops the rooms
from memory, reads the log and the term by majority, and decides again, treating every command as resent: one that has
an entry is answered from it. If there is a newer owner, every pending command is answered "moved" instead.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from chat_service import metrics
from chat_service.partitions.body_dedup import BodyDedup, Copy
from chat_service.partitions.limits import Answered, Limits, Ruling
from chat_service.partitions.room_cache import RoomCache, RoomStores
from chat_service.partitions.settlement import outcome_of
from chat_service.rooms.decision import Answer, Changes, PendingCommand, RoomState, Rules
from chat_service.rooms.decisions import decide
from chat_service.rooms.entry_deliveries import deliveries_of
from chat_service.rooms.heads import Heads
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.room import Room
from chat_service.rooms.typing_marks import TypingMarks, Typist, typing_deliveries
from chat_service.storage.group_commit import GroupCommit
from chat_service.storage.log_store import LogConflict
from chat_service.storage.record_writer import RecordWriter
from shared.backoff import Backoff
from shared.bus.delivery import Delivery, DeliveryKind
from shared.commands.body import COMMANDS_MAX, BodyAnswered, BodyHead
from shared.commands.chat import AnyRoomCommand, Sent
from shared.commands.command import refusal_line, reply_line, request_id_of
from shared.encoding import to_json
from shared.errors import ErrorCode, Malformed, Refusal, StaleOwner, Unavailable
from shared.protocol.server_frames import TypingMark
from shared.protocol.validation import decode
from shared.telemetry import logs, tracing

log = logs.get(__name__)

RETRY_BACKOFF_FIRST_S = 0.02
RETRY_BACKOFF_MAX_S = 0.5
FAILURES_MAX = 3
UNSENT_MAX_BYTES = 8 * 1024 * 1024
UNSENT_PAUSE_S = 0.01

_decoder = msgspec.json.Decoder(AnyRoomCommand)


class Outlet(Protocol):
    """The sending half of the bus, as a partition sees it; tests put a recorder in its place."""

    @property
    def unsent_bytes(self) -> int:
        """Return the number of bytes sent but not yet written to the socket."""

    def send_deliveries(self, deliveries: Sequence[Delivery], queues: Sequence[str] = ()) -> None:
        """Send deliveries, and the answers among them to these queues, in order and without a confirm."""


class EntryFollower(Protocol):
    """The follower of the log, as a partition sees it."""

    def note(self, entries: Sequence[LogEntry]) -> None:
        """Take entries that are in the log; repeats too."""

    async def touch(self, entries: Sequence[LogEntry]) -> None:
        """Note durably that these entries are about to be committed. Raises Unavailable."""


class Services(NamedTuple):
    """The dependencies that all partitions of a process share."""

    stores: RoomStores
    commits: GroupCommit
    records: RecordWriter
    limits: Limits
    follower: EntryFollower
    outlet: Outlet
    rules: Rules
    clock_ms: Callable[[], int]
    monotonic_ms: Callable[[], int]


@dataclass(slots=True, eq=False)
class _Body:
    """A body that is not answered yet."""

    head: BodyHead
    jobs: "list[_Job]"


@dataclass(slots=True, eq=False)
class _Job:
    """One command of a body. It expires by this process's monotonic clock."""

    command: AnyRoomCommand
    expires_at_monotonic_ms: int
    is_resent: bool
    may_be_stored: bool  # an entry that it made may be in the log
    ruling: Ruling | None = None  # of its caller's limits; None until it is charged
    entry: LogEntry | None = None


class Outcome(NamedTuple):
    """The answers to the commands of a batch, in order, and the deliveries that it causes."""

    answers: list[Answer]
    deliveries: list[Delivery]


class Partition:
    """The rooms of one partition under one term.

    `check_term(number, term)` raises StaleOwner once there is a newer term.
    """

    def __init__(
        self, number: int, term: int, services: Services, check_term: Callable[[int, int], Awaitable[None]]
    ) -> None:
        self.number = number
        self.term = term
        self._services = services
        self._dedup = BodyDedup()
        self._bodies: deque[_Body] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._typing = TypingMarks()
        self._heads = Heads()
        self._cache = RoomCache(services.stores, partial(check_term, number, term), self._deliver_found)
        self._is_over = False

    @property
    def cached_rooms(self) -> int:
        """Return the number of rooms in memory."""
        return len(self._cache)

    # Bodies in ------------------------------------------------------------------------------------------------------

    def accept(self, head: BodyHead, lines: list[bytes], age_ms: int) -> None:
        """Take a body that arrived, `age_ms` after it was sent. Answer a repeat from memory."""
        match self._dedup.arrive(head):
            case Copy.NEW:
                self._bodies.append(_Body(head, self._read(head, lines, age_ms)))
                self._arrived.set()
            case Copy.ANSWERED:
                self._send_answer(head, self._dedup.answer_of(head), head.reply_to)
            case Copy.UNDECIDED | Copy.STALE:
                pass

    def _read(self, head: BodyHead, lines: list[bytes], age_ms: int) -> list[_Job]:
        now_ms = self._services.monotonic_ms()
        jobs: list[_Job] = []
        for line in lines:
            try:
                command: AnyRoomCommand = decode(line, _decoder)
            except (Malformed, Refusal) as error:
                log.error("bad_command_line", gateway=head.gateway, reason=str(error))
                continue
            ttl_ms = command.expires_at_monotonic_ms - head.sent_at_monotonic_ms - age_ms
            jobs.append(_Job(command, now_ms + ttl_ms, head.is_resent, head.is_resent))
        return jobs

    # The loop -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit batch after batch, until `stop`, `abandon` or a newer term."""
        while not self._is_over:
            await self._arrived.wait()
            await self._wait_for_socket()
            batch = [] if self._is_over else self._take()
            if not batch:
                continue
            self._idle.clear()
            try:
                await self._process_batch(batch)
            finally:
                self._idle.set()

    async def _wait_for_socket(self) -> None:
        """Commit nothing while over 8 MB wait for the socket to the broker: the answers would come too late."""
        while not self._is_over and self._services.outlet.unsent_bytes > UNSENT_MAX_BYTES:  # noqa: ASYNC110 - no event
            await asyncio.sleep(UNSENT_PAUSE_S)

    async def stop(self) -> None:
        """Finish the commit in progress, write the deferred records, and answer the rest "moved"."""
        self._is_over = True
        self._arrived.set()
        await self._idle.wait()
        await self._services.records.write_partition(self.number)
        self._answer_moved(list(self._bodies))
        self._bodies.clear()
        for typist in self._typing.all_shown():
            self._services.outlet.send_deliveries(typing_deliveries(typist, is_typing=False))

    def abandon(self) -> None:
        """End at once: this process lost its queue or its term, so its answers would be ignored."""
        self._is_over = True
        self._bodies.clear()
        self._arrived.set()

    def _take(self) -> list[_Body]:
        """Remove and return the bodies of the next batch: all that wait, up to 500 commands."""
        batch: list[_Body] = []
        commands = 0
        while self._bodies and (not batch or commands + len(self._bodies[0].jobs) <= COMMANDS_MAX):
            body = self._bodies.popleft()
            commands += len(body.jobs)
            batch.append(body)
        if not self._bodies:
            self._arrived.clear()
        return batch

    async def _process_batch(self, batch: list[_Body]) -> None:
        """Commit and answer a batch; end this term if there is a newer owner."""
        started_s = time.perf_counter()
        jobs = [job for body in batch for job in body.jobs]
        try:
            with tracing.batch("commit", ((job.command.op, job.command.trace) for job in jobs)):
                outcome = await self._commit_with_retries(jobs)
        except StaleOwner:
            self._is_over = True
            self._answer_moved([*batch, *self._bodies])
            self._bodies.clear()
            return
        self._answer(batch, outcome)
        metrics.COMMIT_COMMANDS.observe(len(jobs))
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - started_s)

    async def _commit_with_retries(self, jobs: list[_Job]) -> Outcome:
        """Commit, and retry as often as needed. Raises StaleOwner.

        While the database is unavailable, a batch of fresh commands is refused at once. A batch with a resent command
        (`is_resent`: look it up first) is kept until all have expired, and then gets no answer. After repeated errors,
        a command that may have an entry (`may_be_stored`) gets no answer instead of INTERNAL: its sender hears
        UNAVAILABLE, and may send it again.
        """
        backoff = Backoff(RETRY_BACKOFF_FIRST_S, RETRY_BACKOFF_MAX_S)
        failures = 0
        while True:
            try:
                return await self._commit(jobs)
            except StaleOwner:
                raise
            except LogConflict as conflict:
                log.info("commit_refused", partition=self.number, reason=str(conflict), commands=len(jobs))
                metrics.CONFLICTS.inc()
            except Unavailable as error:
                log.warning("commit_postponed", partition=self.number, reason=str(error), commands=len(jobs))
                if not any(job.is_resent for job in jobs):
                    return Outcome([Refusal(ErrorCode.UNAVAILABLE, str(error))] * len(jobs), [])
                if self._are_all_expired(jobs):
                    return Outcome([None] * len(jobs), [])
            except Exception:  # one failing command must not stop the partition
                failures += 1
                log.exception("commit_failed", partition=self.number, commands=len(jobs), failures=failures)
                if len(jobs) > 1:
                    _treat_as_resent(jobs)
                    return await self._commit_one_by_one(jobs)
                if failures == FAILURES_MAX:
                    refusal = Refusal(ErrorCode.INTERNAL, "internal server error")
                    return Outcome([None if jobs[0].may_be_stored else refusal], [])
            _treat_as_resent(jobs)
            await asyncio.sleep(backoff.next_s())

    async def _commit_one_by_one(self, jobs: list[_Job]) -> Outcome:
        """Commit each command alone, so that a failing one does not fail the others."""
        answers: list[Answer] = []
        deliveries: list[Delivery] = []
        for job in jobs:
            outcome = await self._commit_with_retries([job])
            answers += outcome.answers
            deliveries += outcome.deliveries
        return Outcome(answers, deliveries)

    def refuse_waiting(self) -> None:
        """Refuse the waiting bodies, except resent ones, while the database is unavailable."""
        refusal = Refusal(ErrorCode.UNAVAILABLE, "the database is unavailable")
        fresh = [body for body in self._bodies if not body.head.is_resent]
        self._bodies = deque(body for body in self._bodies if body.head.is_resent)
        if fresh:
            self._answer(fresh, Outcome([refusal for body in fresh for _ in body.jobs], []))

    async def _commit(self, jobs: list[_Job]) -> Outcome:
        """Load, decide, append, project. The commit path: every step that a message waits for.

        Raises LogConflict, StaleOwner and Unavailable; then these rooms have been dropped from memory.
        """
        services = self._services
        room_ids = {job.command.room_id for job in jobs}
        may_be_stored = False
        try:
            look_up = {job.command.id for job in jobs if job.is_resent}
            states = await self._cache.load([job.command for job in jobs], look_up=look_up)
            await self._charge(jobs, states)
            pending = [self._pending(job) for job in jobs]
            changes = decide(pending, states, self.term, services.clock_ms(), services.rules)
            if _are_not_all_messages(changes.entries):
                await services.follower.touch(changes.entries)
            may_be_stored = bool(changes.entries)
            with_messages = {entry.room_id for entry in changes.entries if entry.message is not None}
            commit = services.commits.commit(changes.entries, lambda: self._are_all_expired(jobs))
            if unmarked := services.records.claim_unmarked(with_messages):
                await asyncio.gather(commit, services.records.mark_active(unmarked))
            else:
                await commit
            services.records.note(changes.entries)
            self._heads.note(changes.entries, states, services.monotonic_ms())  # whatever fails from here on
            await self._project(changes, states)
            services.follower.note([*changes.found, *changes.entries])
            _note_entries(jobs, changes)
        except BaseException:
            self._cache.drop(room_ids)
            if may_be_stored:
                for job in jobs:
                    job.is_resent = job.may_be_stored = True
            raise
        deliveries = _deliveries_of([*changes.found, *changes.entries], states) + changes.deliveries
        deliveries += self._typing_deliveries(jobs, changes.answers, states)
        self._cache.release(states)
        return Outcome(changes.answers, deliveries)

    def _pending(self, job: _Job) -> PendingCommand:
        return PendingCommand(
            job.command,
            job.is_resent,
            self._is_expired(job),
            None if job.ruling is None else job.ruling.refusal,
            self._services.stores.profiles.of(job.command.caller),
        )

    async def _charge(self, jobs: list[_Job], states: dict[str, RoomState]) -> None:
        """Charge commands to their callers' limits, each once, however often it is sent.

        One that is refused may still repeat a stored message, which is answered and not refused: look it up.
        """
        due = [job for job in jobs if job.ruling is None]
        if due:
            rulings = await self._services.limits.rule([job.command for job in due], states)
            for job, ruling in zip(due, rulings, strict=True):
                job.ruling = ruling
        refused = [job.command for job in jobs if job.ruling is not None and job.ruling.refusal is not None]
        if refused:
            await self._cache.load(refused, look_up={command.id for command in refused})

    async def _project(self, changes: Changes, states: dict[str, RoomState]) -> None:
        """Write the records that effects change, the room's last: a read after the answer must find them."""
        rooms = self._services.stores.rooms
        with_effects = [entry for entry in changes.entries if entry.has_effects]
        if with_effects:
            await rooms.put_members(with_effects)
            await self._services.stores.messages.write_changes(with_effects)
            changed_members = {
                (entry.room_id, effect.user_id): entry.kind is EntryKind.CREATED
                for entry in with_effects
                for effect in entry.members
            }
            await self._services.stores.presence.mark_new_members(changed_members)
        changed = {entry.room_id for entry in with_effects}
        await rooms.put_read_marks(_read_marks(changes, changed))
        if with_effects:
            await self._services.records.write_marks(changed)
            await rooms.put_rooms([room for room_id in changed if (room := states[room_id].room) is not None])
        metrics.MESSAGES_STORED.inc(sum(entry.message is not None for entry in changes.entries))

    def _is_expired(self, job: _Job) -> bool:
        return job.expires_at_monotonic_ms <= self._services.monotonic_ms()

    def _are_all_expired(self, jobs: list[_Job]) -> bool:
        return all(map(self._is_expired, jobs))

    # Answers and deliveries out -------------------------------------------------------------------------------------

    def _answer(self, batch: list[_Body], outcome: Outcome) -> None:
        """Send all results of a batch in one publish: deliveries first, then each body's answer."""
        deliveries = outcome.deliveries
        queues: list[str] = []
        rulings: list[Answered] = []
        position = 0
        for body in batch:
            own = outcome.answers[position : position + len(body.jobs)]
            position += len(body.jobs)
            replies = tuple(
                _reply(job, answer) for job, answer in zip(body.jobs, own, strict=True) if answer is not None
            )
            for job, answer in zip(body.jobs, own, strict=True):
                self._count(job, answer)
                if job.ruling is not None:
                    outcome_of_job = outcome_of(job.command.caller.user_id, answer, job.ruling.refusal, job.entry)
                    rulings.append((job.command, job.ruling, outcome_of_job))
            queues.append(self._dedup.answer(body.head, replies))
            deliveries += self._answer_deliveries(body.head, replies)
        self._services.limits.settle(rulings)  # before the answers, so that a refund precedes the caller's next command
        self._services.outlet.send_deliveries(deliveries, queues)

    def _send_answer(self, head: BodyHead, replies: Sequence[bytes], reply_to: str) -> None:
        self._services.outlet.send_deliveries(self._answer_deliveries(head, replies), [reply_to])

    def _answer_deliveries(self, head: BodyHead, replies: Sequence[bytes]) -> list[Delivery]:
        answers = [Delivery.reply(head.gateway, self.term, reply) for reply in replies]
        return [*answers, _end_of_answer(head, self.term, is_moved=False)]

    def _answer_moved(self, bodies: list[_Body]) -> None:
        for body in bodies:
            self._services.outlet.send_deliveries([moved_delivery(body.head)], [body.head.reply_to])

    def _count(self, job: _Job, answer: Answer) -> None:
        if isinstance(answer, Sent) and answer.repeated:
            metrics.MESSAGES_REPEATED.inc()
        metrics.COMMANDS.labels(job.command.op, _outcome(answer)).inc()
        if logs.details:
            request_id = request_id_of(job.command)
            log.debug("command_done", request_id=request_id, op=job.command.op, command_id=job.command.id)

    def _deliver_found(self, entry: LogEntry, room: Room) -> None:
        self._services.follower.note([entry])
        self._services.outlet.send_deliveries(deliveries_of(entry, room.direct))

    def _typing_deliveries(
        self, jobs: list[_Job], answers: list[Answer], states: dict[str, RoomState]
    ) -> list[Delivery]:
        """Return the typing marks to show to the other users of a room."""
        deliveries: list[Delivery] = []
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, TypingMark):
                room = states[job.command.room_id].room
                typist = Typist(answer.chatroom_id, answer.user_id, None if room is None else room.direct)
                if self._typing.set(typist, answer.is_typing, self._services.clock_ms()):
                    deliveries += typing_deliveries(typist, is_typing=answer.is_typing)
        return deliveries

    # Periodic work --------------------------------------------------------------------------------------------------

    def announcements(self) -> list[Delivery]:
        """Return the heads of active rooms a second ago, and the end of typing that was not renewed."""
        deliveries = self._heads.due(self._services.monotonic_ms())
        for typist in self._typing.ended(self._services.clock_ms()):
            deliveries += typing_deliveries(typist, is_typing=False)
        return deliveries


def moved_delivery(head: BodyHead) -> Delivery:
    """Return the answer to a body that was not decided here."""
    return _end_of_answer(head, head.term, is_moved=True)


def _end_of_answer(head: BodyHead, term: int, *, is_moved: bool) -> Delivery:
    end = BodyAnswered(number=head.number, partition=head.partition, term=term, is_moved=is_moved)
    return Delivery(head.gateway, DeliveryKind.ANSWERED, 0, "", to_json(end))


def _read_marks(changes: Changes, written_whole: Collection[str]) -> dict[tuple[str, str], int]:
    """Return the read marks to write now: requested ones, and those of authors in rooms that skip the write-behind."""
    marks = dict(changes.read_marks)
    for entry in changes.entries:
        if (message := entry.message) is not None and entry.room_id in written_whole:
            key = (entry.room_id, message.user_id)
            marks[key] = max(message.seq, marks.get(key, 0))
    return marks


def _deliveries_of(entries: list[LogEntry], states: dict[str, RoomState]) -> list[Delivery]:
    rooms = (states[entry.room_id].room for entry in entries)
    return [
        delivery
        for entry, room in zip(entries, rooms, strict=True)
        for delivery in deliveries_of(entry, None if room is None else room.direct)
    ]


def _are_not_all_messages(entries: Sequence[LogEntry]) -> bool:
    return any(entry.message is None for entry in entries)


def _note_entries(jobs: list[_Job], changes: Changes) -> None:
    """Note the entries of the commands in the log."""
    made = {id_: entry for entry in (*changes.entries, *changes.found) for id_ in entry.command_ids}
    for job in jobs:
        job.entry = made.get(job.command.id)


def _treat_as_resent(jobs: list[_Job]) -> None:
    """Look the commands up in the log before they are decided again."""
    for job in jobs:
        job.is_resent = True


def _reply(job: _Job, answer: Answer) -> bytes:
    return refusal_line(job.command.id, answer) if isinstance(answer, Refusal) else reply_line(job.command.id, answer)


def _outcome(answer: Answer) -> str:
    if answer is None:
        return "expired"
    return answer.code if isinstance(answer, Refusal) else "ok"
