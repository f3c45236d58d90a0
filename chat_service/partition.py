"""One partition: the only writer of its rooms. A batch of commands becomes one group commit.

    load what the commands need → decide (pure) → members → messages → rooms
    → replies, and deliveries with confirm → acks

Records that follow from messages are written later (see `write_behind`), and the messages of all partitions of a
replica go to disk together (see `group_insert`).

Crash or failure between any two steps: nothing was acknowledged, so the broker redelivers the commands, which are then
decided on the state on disk. Unique indexes turn every other surprise (a second writer, a resent message that memory
does not know) into a WriteConflict, and so into the same path.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from chat_service import metrics
from chat_service.decision import Answer, Changes, PendingCommand, RoomState
from chat_service.decisions import decide
from chat_service.group_insert import GroupInsert
from chat_service.group_read import GroupRead
from chat_service.presence_store import PresenceStore
from chat_service.profiles import Profiles
from chat_service.rate_limit import RateLimiter
from chat_service.requirements import requirements_of, users_of
from chat_service.room_cache import RoomCache
from chat_service.rooms import Room
from chat_service.store import RoomStore
from chat_service.typing_marks import TypingMarks, Typist, typing_deliveries
from chat_service.write_behind import WriteBehind
from shared.bus.confirms import confirmed
from shared.bus.consumer import Line
from shared.bus.delivery import Delivery
from shared.bus.publisher import Publisher
from shared.bus.query_server import decode_command
from shared.commands.chat import RoomCommands, SendDirect, SendMessage, Sent
from shared.commands.command import refusal_line, reply_line, request_id_of
from shared.errors import Refusal, StaleOwner, Unavailable, WriteConflict
from shared.protocol.server_frames import TypingMark
from shared.telemetry import logs, tracing

log = logs.get(__name__)

CONFLICTS_MAX = 10
CONFLICT_PAUSE_S = 0.02

_decoder = msgspec.json.Decoder(RoomCommands)


@dataclass(slots=True)
class _Job:
    """A line and its command. `expired`: the deadline had passed on arrival."""

    line: Line
    command: RoomCommands
    expired: bool = False
    wait_ms: int = 0


class Partition:
    """Handles the batches of one partition's queue, one after another."""

    def __init__(
        self,
        number: int,
        store: RoomStore,
        presence: PresenceStore,
        profiles: Profiles,
        rates: RateLimiter,
        bus: Publisher,
        inserts: GroupInsert,
        active_now: GroupRead[str, int],
        clock_ms: Callable[[], int],
        is_current: Callable[[], bool] = lambda: True,
    ) -> None:
        self._number = number
        self._store = store
        self._presence = presence
        self._profiles = profiles
        self._rates = rates
        self._bus = bus
        self._inserts = inserts
        self._clock_ms = clock_ms
        self._is_current = is_current
        self._typing = TypingMarks()
        self._write_behind = WriteBehind()
        self._cache = RoomCache(store, presence, profiles, active_now, self._write_behind.add)
        self._term: int | None = None  # taken with the first command after a start or a `forget`

    async def handle(self, lines: list[Line]) -> None:
        """Commit a batch: the handler of `Bus.consume`. Raises Unavailable; then nothing may be acknowledged."""
        started_s = time.perf_counter()
        jobs = self._read(lines)
        if not jobs:
            return
        traced = ((job.command.op, job.command.trace) for job in jobs)
        with tracing.batch("commit", traced):
            await self._charge(jobs)
            await self._commit(jobs)
        metrics.COMMIT_COMMANDS.observe(len(jobs))
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - started_s)

    def forget(self) -> None:
        """Drop all memory: another replica may write these rooms meanwhile."""
        self._term = None
        self._cache.forget()

    def _read(self, lines: list[Line]) -> list[_Job]:
        """Return the jobs of the lines, without first deliveries that are late: their callers have given up."""
        now_ms = self._clock_ms()
        jobs: list[_Job] = []
        for line in lines:
            command: RoomCommands | None = decode_command(line, _decoder)
            if command is None:
                continue
            expired = command.deadline_ms <= now_ms
            if expired and not line.redelivered:
                metrics.COMMANDS.labels(command.op, "expired").inc()
            else:
                jobs.append(_Job(line, command, expired))
        return jobs

    async def _charge(self, jobs: list[_Job]) -> None:
        """Count messages towards their senders' rates, once: the verdict stays with the line over all tries."""
        sends = [job for job in jobs if isinstance(job.command, SendMessage | SendDirect) and not job.expired]
        due = [job for job in sends if job.line.verdict is None and not job.line.redelivered]
        if due:
            waits = await self._rates.take([job.command.caller.user_id for job in due])
            for job, wait_ms in zip(due, waits, strict=True):
                job.line.verdict = wait_ms
        for job in sends:
            job.wait_ms = job.line.verdict or 0

    def _check_current(self) -> None:
        """Raise Unavailable when the lease has expired: the partition may belong to another replica."""
        if not self._is_current():
            self.forget()
            raise Unavailable("the lease of this replica has expired")

    async def catch_up(self) -> None:
        """Write the records that lag behind. What cannot be written now is written later."""
        posts, marks = self._write_behind.take(self._write_behind.rooms())
        try:
            await self._store.put_read_marks(marks)
            await self._store.advance_rooms(posts)
        except BaseException as error:
            self._write_behind.put_back(posts, marks)
            if not isinstance(error, Unavailable):
                raise
            log.warning("write_behind_delayed", reason=str(error), rooms=len(posts))

    async def _commit(self, jobs: list[_Job]) -> None:
        redelivered = any(job.line.redelivered for job in jobs)
        for attempt in range(CONFLICTS_MAX):
            try:
                await self._commit_once(jobs, look_up=redelivered)
                return
            except WriteConflict as conflict:
                log.info("commit_conflict", reason=str(conflict), commands=len(jobs))
                metrics.CONFLICTS.inc()
                redelivered = True
            # Without a random pause, two writers in step could keep taking rooms from each other.
            await asyncio.sleep(attempt * random.uniform(0, CONFLICT_PAUSE_S))  # noqa: S311 - no secret
        raise WriteConflict(f"still in conflict after {CONFLICTS_MAX} tries")

    async def _commit_once(self, jobs: list[_Job], *, look_up: bool) -> None:
        """Load, decide, write, answer, deliver. On failure forget the rooms: the disk decides."""
        now_ms = self._clock_ms()
        room_ids = {job.command.room_id for job in jobs}
        try:
            self._check_current()
            term = await self._take_over()
            states = await self._cache.load([job.command for job in jobs], from_disk=look_up)
            asked = [
                PendingCommand(
                    job.command,
                    job.line.redelivered or (look_up and not job.expired),
                    job.expired,
                    job.wait_ms,
                    self._profiles.of(job.command.caller),
                )
                for job in jobs
            ]
            changes = decide(asked, states, now_ms)
            self._fence_redelivered(jobs, states, changes)
            await self._write(changes, term)
            if look_up:
                await self._write_recounted(states, changes)
            changes.deliveries += self._typing_deliveries(jobs, changes, states, now_ms)
            confirms = self._publish(changes.deliveries)
            self._answer(jobs, changes)
            with tracing.span("deliver"):
                await confirmed(confirms)
        except StaleOwner:
            self.forget()
            raise
        except BaseException:
            self._cache.drop(room_ids)
            raise
        self._cache.release(states)

    async def _take_over(self) -> int:
        """Return this owner's term, taken before anything is loaded.

        `term` is a fencing token: a frozen former owner cannot write a membership that this one has written.
        """
        if self._term is None:
            generation = self._cache.generation
            term = await self._store.take_over(self._number)
            if generation != self._cache.generation:
                raise Unavailable("the connection was lost while taking over")
            self._term = term
        return self._term

    def _fence_redelivered(self, jobs: list[_Job], states: dict[str, RoomState], changes: Changes) -> None:
        """Rewrite memberships touched by redelivered commands even when unchanged.

        Stamping our term on them fences off a former owner that froze over these commands and thaws later.
        """
        for job in jobs:
            state = states[job.command.room_id]
            if not job.line.redelivered or state.room is None or not requirements_of(job.command).writes_members:
                continue
            for user_id in state.members.keys() & users_of(job.command):
                changes.members.setdefault((job.command.room_id, user_id), state.members[user_id])

    # Writing --------------------------------------------------------------------------------------------------------

    async def _write(self, changes: Changes, term: int) -> None:
        """Write in this order, so that the next load repairs whatever a crash leaves (see `RoomCache`)."""
        self._check_current()
        await self._store.put_members(changes.members, term)
        if fresh := [key for key, member in changes.members.items() if member is not None]:
            await self._presence.mark_new_members(fresh)
        posted_to = {message.room_id for message in changes.messages} - changes.rooms.keys()
        now_ms = self._clock_ms()
        await asyncio.gather(
            self._inserts.insert(changes.messages, self._check_current),
            self._store.touch_rooms(self._write_behind.touch(posted_to, now_ms), now_ms),
        )
        self._write_behind.note(changes.messages)
        if changes.rooms or changes.read_marks:
            self._check_current()
            await self._write_records(changes.rooms, changes.read_marks)
        metrics.MESSAGES_STORED.inc(len(changes.messages))

    async def _write_records(self, rooms: Mapping[str, Room], read_marks: dict[tuple[str, str], int]) -> None:
        """Write rooms after the read marks of their senders.

        A room's record that is ahead of them would hide that they lag behind.
        """
        posts, marks = self._write_behind.take(rooms)
        try:
            await self._store.put_read_marks(read_marks)
            await self._store.put_read_marks(marks)
            await self._store.put_rooms(rooms.values())
        except BaseException:
            self._write_behind.put_back(posts, marks)
            raise

    async def _write_recounted(self, states: dict[str, RoomState], changes: Changes) -> None:
        rooms = {
            room_id: state.room
            for room_id, state in states.items()
            if state.room is not None and room_id not in changes.rooms and state.room.version > 0
        }
        await self._write_records(rooms, {})

    def _publish(self, deliveries: list[Delivery]) -> "list[asyncio.Future[None]]":
        return [self._bus.deliver(delivery) for delivery in deliveries]

    def _typing_deliveries(
        self, jobs: list[_Job], changes: Changes, states: dict[str, RoomState], now_ms: int
    ) -> list[Delivery]:
        """Return the deliveries of the permitted typing marks that are due."""
        deliveries: list[Delivery] = []
        for job, answer in zip(jobs, changes.answers, strict=True):
            if isinstance(answer, TypingMark):
                room = states[job.command.room_id].room
                typist = Typist(answer.chatroom_id, answer.user_id, None if room is None else room.direct)
                if self._typing.set(typist, answer.is_typing, now_ms):
                    deliveries += typing_deliveries(typist, is_typing=answer.is_typing)
        return deliveries

    async def leave_typing(self) -> None:
        """End the typing that this partition announced. Raises Unavailable."""
        for typist in self._typing.all_shown():
            await confirmed(self._publish(typing_deliveries(typist, is_typing=False)))

    async def end_typing(self) -> None:
        """End the typing of users that stopped without saying so. Raises Unavailable."""
        for typist in self._typing.ended(self._clock_ms()):
            await confirmed(self._publish(typing_deliveries(typist, is_typing=False)))

    def _answer(self, jobs: list[_Job], changes: Changes) -> None:
        for job, answer in zip(jobs, changes.answers, strict=True):
            if isinstance(answer, Sent) and answer.repeated:
                metrics.MESSAGES_REPEATED.inc()
                if not job.line.redelivered and not job.wait_ms:
                    self._rates.give_back(job.command.caller.user_id)
            metrics.COMMANDS.labels(job.command.op, _outcome(answer)).inc()
            if logs.details:
                request_id, command_id = request_id_of(job.command), job.command.id
                log.debug("command_done", request_id=request_id, op=job.command.op, command_id=command_id)
            if answer is None:
                continue
            line = (
                refusal_line(job.command.id, answer)
                if isinstance(answer, Refusal)
                else reply_line(job.command.id, answer)
            )
            self._bus.reply(job.line.reply_to or "", line)


def _outcome(answer: Answer) -> str:
    if answer is None:
        return "expired"
    return answer.code if isinstance(answer, Refusal) else "ok"
