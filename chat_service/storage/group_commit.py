"""Group commit: one ordered insert for the entries of all partitions of this process. The hot path of every message.

    entries of a partition ──> gather during the previous insert ─────────────> insert_many ──> done
                                                                                 │
                              refused: LogConflict, its owner reads and decides again
                                                                                 │
                              outcome unknown: resolved here first, then LogConflict

If the sixteen partitions committed separately, the disk would sync sixteen times. An insert is one command of at most
500 entries and 8 MB, or of one larger group; it is ordered, so it stops at the first refused entry and never leaves an
entry beyond a gap. No room is in two inserts at once, because a partition waits for its insert to end.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Protocol

from chat_service.rooms.log import LogEntry, void_at
from chat_service.storage.log_store import LogConflict, UnknownOutcome
from shared.backoff import Backoff
from shared.errors import Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

ENTRIES_MAX = 500
TEXT_MAX_BYTES = 8 * 1024 * 1024
RESOLVE_BACKOFF_FIRST_S = 0.1
RESOLVE_BACKOFF_MAX_S = 2.0


class LogAppender(Protocol):
    """The part of the log store that a commit needs."""

    async def insert(self, entries: Sequence[LogEntry]) -> None:
        """Append in order. Raises LogConflict, or Unavailable when the outcome is unknown."""


@dataclass(slots=True, eq=False)
class _Group:
    """The entries of one partition."""

    entries: Sequence[LogEntry]
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)


class GroupCommit:
    """Gathers the entries of all partitions. Bound: one batch of each partition."""

    def __init__(self, store: LogAppender) -> None:
        self._store = store
        self._waiting: list[_Group] = []
        self._turn = asyncio.Lock()

    async def commit(self, entries: Sequence[LogEntry], are_all_expired: Callable[[], bool]) -> None:
        """Return once the entries are on a majority.

        Raises LogConflict when an entry was refused, or when the outcome was unknown and has been resolved: each entry
        then is in the log or never will be, and reading the log shows which. `are_all_expired` returns whether
        all commands have expired; once they have, a void entry takes the first rev instead.
        """
        if not entries:
            return
        try:
            await self._insert(entries)
        except Unavailable as error:
            log.warning("commit_outcome_unknown", reason=str(error), entries=len(entries))
            for _, of_room in groupby(sorted(entries, key=lambda entry: entry.room_id), lambda entry: entry.room_id):
                await self._resolve(list(of_room), are_all_expired)
            raise UnknownOutcome("the outcome of the insert was unknown") from error

    async def _insert(self, entries: Sequence[LogEntry]) -> None:
        group = _Group(entries)
        self._waiting.append(group)
        async with self._turn:  # the lock holder inserts for all waiting groups
            while not group.done.done():
                await self._insert_next()
        group.done.result()

    async def _insert_next(self) -> None:
        groups = self._take()
        try:
            await self._store.insert([entry for group in groups for entry in group.entries])
        except LogConflict as conflict:
            self._share_out(groups, conflict)
        except Exception as error:
            for group in groups:
                _fail(group, error)
        except BaseException:  # only this partition is cancelled; the others have to resolve theirs
            for group in groups:
                _fail(group, Unavailable("the insert was interrupted"))
                group.done.exception()  # mark as retrieved: the cancelled partition never awaits it
            raise
        else:
            for group in groups:
                group.done.set_result(None)

    def _take(self) -> list[_Group]:
        """Remove and return the groups of the next insert: at most 500 entries and 8 MB, or one larger group."""
        taken: list[_Group] = []
        entries = size_bytes = 0
        for group in self._waiting:
            entries += len(group.entries)
            size_bytes += group.size_bytes
            if taken and (entries > ENTRIES_MAX or size_bytes > TEXT_MAX_BYTES):
                break
            taken.append(group)
        del self._waiting[: len(taken)]
        return taken

    def _share_out(self, groups: list[_Group], conflict: LogConflict) -> None:
        """Complete the groups before the place where the insert stopped, refuse the one there, and queue the rest."""
        for index, end in enumerate(accumulate(len(group.entries) for group in groups)):
            if end <= conflict.stored:
                groups[index].done.set_result(None)
                continue
            begin = end - len(groups[index].entries)
            refused = LogConflict(str(conflict), conflict.stored - begin)
            refused.__cause__ = conflict
            _fail(groups[index], refused)
            self._waiting[:0] = groups[index + 1 :]
            return

    async def _resolve(self, entries: list[LogEntry], are_all_expired: Callable[[], bool]) -> None:
        """After an unknown outcome, ensure that each of these entries of one room is in the log or can never be.

        Inserting the same documents again resolves it. If that succeeds, they are in the log. If it is refused, the
        first of their revs is taken, by them or by another entry, so the earlier insert can no longer succeed. Until
        one of the two is known, nothing else may be decided in the room.
        """
        backoff = Backoff(RESOLVE_BACKOFF_FIRST_S, RESOLVE_BACKOFF_MAX_S)
        while True:
            await asyncio.sleep(backoff.next_s())
            first = entries[0]
            again = entries
            if are_all_expired() and first.rev > 1:  # no log begins with a void
                again = [void_at(first.room_id, first.rev, first.term, first.at_ms)]
            try:
                await self._store.insert(again)
            except LogConflict:
                return
            except Unavailable as error:
                log.warning("commit_outcome_still_unknown", reason=str(error), entries=len(entries))
            else:
                return


def _fail(group: _Group, error: BaseException) -> None:
    if not group.done.done():
        group.done.set_exception(error)
