"""The commit path of a partition: every step that a message waits for.

    load ──> charge limits ──> decide (pure) ──> commit to the log ──> records that effects change

After a failure, the rooms are dropped from memory: the log decides, and the caller tries again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from chat_service import metrics
from chat_service.partitions.batch import Job, Outcome, are_all_expired
from chat_service.partitions.limits import Limits
from chat_service.partitions.room_cache import RoomCache, RoomStores
from chat_service.rooms.decision import Answer, Changes, PendingCommand, RoomState, Rules
from chat_service.rooms.decisions import decide
from chat_service.rooms.entry_deliveries import deliveries_of
from chat_service.rooms.heads import Heads
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.membership_deliveries import membership_deliveries
from chat_service.rooms.message_decisions import sent_again
from chat_service.rooms.room import Room, may_see
from chat_service.rooms.typing_marks import TypingMarks, Typist, typing_deliveries
from chat_service.storage.group_commit import GroupCommit
from chat_service.storage.log_store import LogConflict, UnknownOutcome
from chat_service.storage.record_writer import RecordWriter
from shared.bus.delivery import Delivery
from shared.commands.chat import SendDirect, SendMessage
from shared.errors import Refusal
from shared.protocol.server_frames import TypingMark
from shared.telemetry import tracing


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
        """Take entries that are in the log, repeats included."""

    async def touch(self, entries: Sequence[LogEntry]) -> None:
        """Record durably that these entries are about to be committed. Raises Unavailable."""


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
    generation: str = ""  # of the database: see `shared.generation_store`


class CommitPath:
    """Commits the batches of one partition under one term, one after another.

    `check_term` raises StaleOwner once there is a newer term.
    """

    def __init__(self, term: int, services: Services, check_term: Callable[[], Awaitable[None]]) -> None:
        self._term = term
        self._services = services
        self._typing = TypingMarks()
        self._heads = Heads()
        self._cache = RoomCache(services.stores, check_term, self._deliver_found)

    @property
    def cached_rooms(self) -> int:
        """Return the number of rooms in memory."""
        return len(self._cache)

    async def commit(self, jobs: list[Job]) -> Outcome:
        """Load, charge, decide, commit, project: every step that a message waits for.

        Raises LogConflict, StaleOwner and Unavailable; then these rooms have been dropped from memory.
        """
        services = self._services
        room_ids = {job.command.room_id for job in jobs}
        may_be_stored = False
        changes = Changes()
        try:
            look_up = {job.command.id for job in jobs if job.is_resent}
            states = await self._cache.load([job.command for job in jobs], look_up=look_up)
            await self._charge(jobs, states)
            pending = [self._pending(job) for job in jobs]
            changes = decide(pending, states, self._term, services.clock_ms(), services.rules)
            await self._find_repeats(jobs, changes, states)
            if _are_not_all_messages(changes.entries):
                await services.follower.touch(changes.entries)
            may_be_stored = bool(changes.entries)
            with_messages = {entry.room_id for entry in changes.entries if entry.message is not None}
            commit = services.commits.commit(changes.entries, lambda: are_all_expired(jobs, services.monotonic_ms()))
            if unmarked := services.records.claim_unmarked(with_messages):
                await asyncio.gather(commit, services.records.mark_active(unmarked))
            else:
                await commit
            services.records.note(changes.entries)
            self._heads.note(changes.entries, states, services.monotonic_ms())  # even if a later step fails
            await self._project(changes, states)
            _note_entries(jobs, changes, states)
        except BaseException as error:
            self._cache.drop(room_ids)
            _note_refused(jobs, changes, error)
            if may_be_stored:
                for job in jobs:
                    job.is_resent = job.may_be_stored = True
            raise
        entries = [*changes.found.values(), *changes.entries]
        traced = tracing.is_on
        deliveries = _traced_deliveries_of(entries, states, jobs) if traced else _all_deliveries_of(entries, states)
        deliveries += changes.deliveries
        deliveries += self._typing_deliveries(jobs, changes.answers, states)
        self._cache.release(states)
        return Outcome(changes.answers, deliveries)

    def _pending(self, job: Job) -> PendingCommand:
        return PendingCommand(
            job.command,
            job.is_resent,
            job.may_land_later,
            job.is_expired(self._services.monotonic_ms()),
            _refusal_of(job),
            self._services.stores.profiles.of(job.command.caller),
        )

    async def _charge(self, jobs: list[Job], states: dict[str, RoomState]) -> None:
        """Charge each command to its caller's limits once, even if resent."""
        due = [job for job in jobs if job.verdict is None]
        if due:
            verdicts = await self._services.limits.check([job.command for job in due], states)
            for job, verdict in zip(due, verdicts, strict=True):
                job.verdict = verdict

    async def _find_repeats(self, jobs: list[Job], changes: Changes, states: Mapping[str, RoomState]) -> None:
        """If a refused send repeats a stored message, answer with that message: it was accepted before."""
        refused: dict[tuple[str, str, str], list[int]] = {}
        for index, (job, answer) in enumerate(zip(jobs, changes.answers, strict=True)):
            command = job.command
            if isinstance(answer, Refusal) and isinstance(command, SendMessage | SendDirect):
                state, user_id = states[command.room_id], command.caller.user_id
                if command.client_message_id is not None and may_see(state.room, state.members.get(user_id)):
                    refused.setdefault((command.room_id, user_id, command.client_message_id), []).append(index)
        if refused:
            for message in await self._services.stores.room_log.by_client_id(refused):
                for index in refused[message.room_id, message.user_id, message.client_message_id or ""]:
                    changes.answers[index] = sent_again(message)

    async def _project(self, changes: Changes, states: dict[str, RoomState]) -> None:
        """Write the records that effects change, the room's own record last.

        They are written before the answer, because a read after it must find them.

        The follower is notified once the messages show their changes, whatever happens to the rest.
        """
        stores = self._services.stores
        with_effects = [entry for entry in changes.entries if entry.has_effects]
        if with_effects:
            await stores.rooms.put_members(with_effects)
            await stores.messages.write_changes(with_effects)
        self._services.follower.note([*changes.found.values(), *changes.entries])
        if with_effects:
            changed_members = {
                (entry.room_id, effect.user_id): entry.kind is EntryKind.CREATED
                for entry in with_effects
                for effect in entry.members
            }
            await stores.presence.flag_new_members(changed_members)
            stores.active_now.forget({room_id for room_id, _ in changed_members})
        changed = {entry.room_id for entry in with_effects}
        await stores.rooms.put_read_marks(_read_marks(changes, changed))
        if with_effects:
            async with self._services.records.replaced(changed):
                await stores.rooms.put_rooms([room for one in changed if (room := states[one].room) is not None])
        metrics.MESSAGES_STORED.inc(sum(entry.message is not None for entry in changes.entries))

    def _deliver_found(self, entry: LogEntry, room: Room) -> None:
        self._services.follower.note([entry])
        self._services.outlet.send_deliveries(_deliveries_of(entry, room))

    def _typing_deliveries(
        self, jobs: Sequence[Job], answers: Sequence[Answer], states: dict[str, RoomState]
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
        """Return the heads of rooms active a second ago, and the ends of expired typing marks."""
        return self._heads.due(self._services.monotonic_ms()) + _ends(self._typing.ended(self._services.clock_ms()))

    def end_typing(self) -> list[Delivery]:
        """Return the ends of all typing marks, for the stop of the partition."""
        return _ends(self._typing.all_shown())


def _refusal_of(job: Job) -> Refusal | None:
    """Return the refusal to raise before the command makes an entry: of its caller's limits or of its gateway.

    None if there is none.
    """
    if job.verdict is not None and job.verdict.refusal is not None:
        return job.verdict.refusal
    command = job.command
    found = command.refusal if isinstance(command, SendMessage | SendDirect) else None
    return None if found is None else found.to_refusal()


def _ends(typists: Iterable[Typist]) -> list[Delivery]:
    return [delivery for typist in typists for delivery in typing_deliveries(typist, is_typing=False)]


def _read_marks(changes: Changes, written_whole: Collection[str]) -> dict[tuple[str, str], int]:
    """Return the read marks to write now: requested ones, and those of authors in rooms that skip the write-behind."""
    marks = dict(changes.read_marks)
    for entry in changes.entries:
        if (message := entry.message) is not None and entry.room_id in written_whole:
            key = (entry.room_id, message.user_id)
            marks[key] = max(message.seq, marks.get(key, 0))
    return marks


def _all_deliveries_of(entries: list[LogEntry], states: dict[str, RoomState]) -> list[Delivery]:
    return [delivery for entry in entries for delivery in _deliveries_of(entry, states[entry.room_id].room)]


def _deliveries_of(entry: LogEntry, room: Room | None) -> list[Delivery]:
    direct = None if room is None else room.direct
    if not entry.members:  # HOT
        return deliveries_of(entry, direct)
    return deliveries_of(entry, direct) + membership_deliveries(entry, direct)


def _traced_deliveries_of(entries: list[LogEntry], states: dict[str, RoomState], jobs: list[Job]) -> list[Delivery]:
    """Return the deliveries, each followed by the trace of its command if that has one."""
    traces = {job.command.id: trace for job in jobs if (trace := job.command.trace) is not None}
    deliveries: list[Delivery] = []
    for entry in entries:
        trace = traces.get(entry.id)
        for delivery in _deliveries_of(entry, states[entry.room_id].room):
            deliveries.append(delivery)
            if trace is not None:
                deliveries.append(delivery.trace(trace))
    return deliveries


def _are_not_all_messages(entries: Sequence[LogEntry]) -> bool:
    return any(entry.message is None for entry in entries)


def _note_refused(jobs: list[Job], changes: Changes, error: BaseException) -> None:
    """Note the job whose entry the log has refused, if that is why a commit failed."""
    if isinstance(error, LogConflict) and not isinstance(error, UnknownOutcome):
        refused = changes.entries[error.stored]
        for job in jobs:
            job.was_refused_by_log |= job.command.id in refused.command_ids


def _note_entries(jobs: list[Job], changes: Changes, states: Mapping[str, RoomState]) -> None:
    """Set each job's log entry: a new one, or that of an earlier copy."""
    made = {id_: entry for entry in changes.entries for id_ in entry.command_ids}
    for job in jobs:
        id_ = job.command.id
        job.entry = made.get(id_) or states[job.command.room_id].stored.get(id_)
