"""One partition under one term: decides the commands of its rooms and commits them, a batch at a time.

    body ──> dedup ──> batch ──> load ──> charge limits ──> decide (pure) ──> commit to the log
                                                                                 │
        answers and deliveries in one publish <── records that effects change <──┘
                        │
        a second later: the heads of the active rooms; five seconds later: the write-behind

After any failure the log decides. After a refused commit, or one with an unknown outcome, the partition drops the rooms
from memory, reads the log and the term with majority read concern, and decides again, treating every command as resent:
a command that has an entry is answered from it. If there is a newer owner, every pending command is answered "moved"
instead.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from chat_service import metrics
from chat_service.partitions.answers import BodyAnswers
from chat_service.partitions.batch import Body, Job, Outcome, are_all_expired, read_body, treat_as_resent
from chat_service.partitions.commit_path import CommitPath, Services
from chat_service.rooms.decision import Answer
from chat_service.storage.documents import NewerDocument
from chat_service.storage.log_store import LogConflict
from shared.backoff import Backoff
from shared.bus.delivery import Delivery
from shared.commands.body import COMMANDS_MAX, BodyHead
from shared.errors import ErrorCode, Refusal, StaleOwner, Unavailable
from shared.telemetry import logs, tracing

log = logs.get(__name__)

RETRY_BACKOFF_FIRST_S = 0.02
RETRY_BACKOFF_MAX_S = 0.5
FAILURES_MAX = 3
UNSENT_MAX_BYTES = 8 * 1024 * 1024
UNSENT_PAUSE_S = 0.01


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
        self._answers = BodyAnswers(term, services.limits, services.outlet)
        self._bodies: deque[Body] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._commits = CommitPath(term, services, partial(check_term, number, term))
        self._is_over = False

    @property
    def cached_rooms(self) -> int:
        """Return the number of rooms in memory."""
        return self._commits.cached_rooms

    # Bodies in ------------------------------------------------------------------------------------------------------

    def accept(self, head: BodyHead, lines: list[bytes], age_ms: int) -> None:
        """Take a body that arrived, `age_ms` after it was sent. Answer a repeat from memory."""
        if self._answers.is_new(head):
            self._bodies.append(read_body(head, lines, age_ms, self._services.monotonic_ms()))
            self._arrived.set()

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
        """Wait while over 8 MB are queued for the socket to the broker: answers to a commit would come too late."""
        while not self._is_over and self._services.outlet.unsent_bytes > UNSENT_MAX_BYTES:  # noqa: ASYNC110 - no event
            await asyncio.sleep(UNSENT_PAUSE_S)

    async def stop(self) -> None:
        """Finish the commit in progress, write the deferred records, and answer the rest "moved"."""
        self._is_over = True
        self._arrived.set()
        await self._idle.wait()
        await self._services.records.write_partition(self.number)
        self._answers.send_moved(list(self._bodies))
        self._bodies.clear()
        self._services.outlet.send_deliveries(self._commits.end_typing())

    def abandon(self) -> None:
        """End at once: this process lost its queue or its term, so its answers would be ignored."""
        self._is_over = True
        self._bodies.clear()
        self._arrived.set()

    def _take(self) -> list[Body]:
        """Remove and return the bodies of the next batch: all that wait, up to 500 commands."""
        batch: list[Body] = []
        commands = 0
        while self._bodies and (not batch or commands + len(self._bodies[0].jobs) <= COMMANDS_MAX):
            body = self._bodies.popleft()
            commands += len(body.jobs)
            batch.append(body)
        if not self._bodies:
            self._arrived.clear()
        return batch

    async def _process_batch(self, batch: list[Body]) -> None:
        """Commit and answer a batch; end this term if there is a newer owner."""
        started_s = time.perf_counter()
        jobs = [job for body in batch for job in body.jobs]
        try:
            with tracing.batch("commit", ((job.command.op, job.command.trace) for job in jobs)):
                outcome = await self._commit_with_retries(jobs)
        except StaleOwner:
            self._is_over = True
            self._answers.send_moved([*batch, *self._bodies])
            self._bodies.clear()
            return
        self._answers.send(batch, outcome)
        metrics.COMMIT_COMMANDS.observe(len(jobs))
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - started_s)

    async def _commit_with_retries(self, jobs: list[Job]) -> Outcome:
        """Commit, and retry as often as needed. Raises StaleOwner.

        While the database is unavailable, a batch of fresh commands is refused at once. A batch with a resent command
        (`is_resent`: look it up first) is kept until all have expired, and is then left unanswered. After repeated
        errors, a command that may have an entry (`may_be_stored`) is left unanswered rather than refused with INTERNAL:
        its sender receives UNAVAILABLE, and may send it again.
        """
        backoff = Backoff(RETRY_BACKOFF_FIRST_S, RETRY_BACKOFF_MAX_S)
        failures = 0
        while True:
            try:
                return await self._commits.commit(jobs)
            except StaleOwner:
                raise
            except LogConflict as conflict:
                log.info("commit_refused", partition=self.number, reason=str(conflict), commands=len(jobs))
                metrics.CONFLICTS.inc()
            except NewerDocument as error:
                log.error("room_not_readable", partition=self.number, room_id=error.room_id, reason=str(error))
                return await self._commit_without(error, jobs)
            except Unavailable as error:
                log.warning("commit_postponed", partition=self.number, reason=str(error), commands=len(jobs))
                if not any(job.is_resent for job in jobs):
                    return Outcome([Refusal(ErrorCode.UNAVAILABLE, str(error))] * len(jobs), [])
                if are_all_expired(jobs, self._services.monotonic_ms()):
                    return Outcome([None] * len(jobs), [])
            except Exception:  # one failing command must not stop the partition
                failures += 1
                log.exception("commit_failed", partition=self.number, commands=len(jobs), failures=failures)
                if len(jobs) > 1:
                    treat_as_resent(jobs)
                    return await self._commit_one_by_one(jobs)
                if failures == FAILURES_MAX:
                    refusal = Refusal(ErrorCode.INTERNAL, "internal server error")
                    return Outcome([None if jobs[0].may_be_stored else refusal], [])
            treat_as_resent(jobs)
            await asyncio.sleep(backoff.next_s())

    async def _commit_without(self, error: NewerDocument, jobs: list[Job]) -> Outcome:
        """Commit the commands of the other rooms, and refuse those of a room that this release cannot read."""
        others = [job for job in jobs if job.command.room_id != error.room_id]
        outcome = await self._commit_with_retries(others) if others else Outcome([], [])
        answers = iter(outcome.answers)
        refusal = Refusal(ErrorCode.UNAVAILABLE, str(error))
        return Outcome(
            [
                next(answers) if job.command.room_id != error.room_id else None if job.may_be_stored else refusal
                for job in jobs
            ],
            outcome.deliveries,
        )

    async def _commit_one_by_one(self, jobs: list[Job]) -> Outcome:
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
            self._answers.send(fresh, Outcome([refusal for body in fresh for _ in body.jobs], []))

    # Periodic work --------------------------------------------------------------------------------------------------

    def announcements(self) -> list[Delivery]:
        """Return the heads of rooms active a second ago, and the ends of expired typing marks."""
        return self._commits.announcements()
