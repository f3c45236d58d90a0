"""One insert for the messages of all partitions of a replica. Messages that arrive during an insert share the next.

Otherwise sixteen partitions would each wait for a disk sync of their own.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from chat_service.messages import Message
from chat_service.store import InsertConflict
from shared.errors import Unavailable

INSERTED_AT_ONCE_MAX = 1000


class MessageStore(Protocol):
    """The part of the store that is needed here."""

    async def insert_messages(self, messages: Sequence[Message]) -> None:
        """Insert in order, up to the first that is stored already. Raises InsertConflict then."""


@dataclass(slots=True, eq=False)
class _Group:
    """One partition's messages. `check` raises Unavailable when they may no longer be written."""

    messages: Sequence[Message]
    check: Callable[[], None]
    done: bool = False
    error: Exception | None = None

    def end(self, error: Exception | None = None) -> None:
        """Finish the group, with an error or without."""
        self.done, self.error = True, error


class GroupInsert:
    """Gathers inserts. Bound: one batch per partition."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store
        self._waiting: list[_Group] = []
        self._turn = asyncio.Lock()

    async def insert(self, messages: Sequence[Message], check: Callable[[], None]) -> None:
        """Return once the messages are stored.

        Raises InsertConflict when only the first `stored` messages were inserted and the next is a duplicate. Also
        raises whatever `check` raises, which is called right before the insert.
        """
        if not messages:
            return
        group = _Group(messages, check)
        self._waiting.append(group)
        try:
            async with self._turn:  # the holder writes for everybody who waits
                while not group.done:
                    await self._write()
        finally:
            if not group.done:
                self._waiting.remove(group)
        if group.error is not None:
            raise group.error

    async def _write(self) -> None:
        groups = self._next()
        if not groups:
            return
        try:
            await self._store.insert_messages([message for group in groups for message in group.messages])
        except InsertConflict as conflict:
            self._share_out(groups, conflict)
        except Exception as error:  # each caller of the insert judges it
            for group in groups:
                group.end(error)
        else:
            for group in groups:
                group.end()
        self._waiting = [group for group in self._waiting if not group.done]

    def _next(self) -> list[_Group]:
        """Return the groups of the next insert: at most 1,000 messages, unless a single group has more."""
        chosen: list[_Group] = []
        size = 0
        for group in self._waiting:
            if chosen and size + len(group.messages) > INSERTED_AT_ONCE_MAX:
                break
            try:
                group.check()
            except Unavailable as error:
                group.end(error)
                continue
            chosen.append(group)
            size += len(group.messages)
        if not chosen:
            self._waiting = [group for group in self._waiting if not group.done]
        return chosen

    def _share_out(self, groups: list[_Group], conflict: InsertConflict) -> None:
        """Settle an insert that stopped: groups before the conflict are done, its own group fails.

        The groups behind it stay and are inserted again.
        """
        for group, end in zip(groups, accumulate(len(group.messages) for group in groups), strict=True):
            if end <= conflict.stored:
                group.end()
                continue
            own = InsertConflict(str(conflict), conflict.stored - (end - len(group.messages)))
            own.__cause__ = conflict
            group.end(own)
            return
