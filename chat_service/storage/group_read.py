"""One read for all partitions of a replica. Requests that arrive during a read share the next."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Lookup(Generic[K, V]):
    """The keys of one caller, and the result."""

    keys: Collection[K]
    answer: Mapping[K, V] | None = None


class GroupRead(Generic[K, V]):
    """Gathers reads of one kind. A result is never older than its request.

    A read that fails raises in the caller that made it; the next waiting caller reads again for all others.
    """

    def __init__(self, read: Callable[[Collection[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._waiting: list[_Lookup[K, V]] = []
        self._turn = asyncio.Lock()

    async def get(self, keys: Collection[K]) -> Mapping[K, V]:
        """Return the values of the keys, and perhaps of others. Raises the errors of the read."""
        lookup: _Lookup[K, V] = _Lookup(keys)
        self._waiting.append(lookup)
        try:
            async with self._turn:  # the lock holder reads for all waiting callers
                if lookup.answer is None:
                    await self._answer_all()
        finally:
            self._waiting.remove(lookup)
        assert lookup.answer is not None  # noqa: S101 - otherwise the read has raised
        return lookup.answer

    async def _answer_all(self) -> None:
        lookups = list(self._waiting)
        answer = await self._read({key for lookup in lookups for key in lookup.keys})
        for lookup in lookups:
            lookup.answer = answer
