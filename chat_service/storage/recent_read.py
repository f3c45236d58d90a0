"""Reads whose results are reused for a second."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Generic, TypeVar

from chat_service.storage.group_read import GroupRead

K = TypeVar("K")
V = TypeVar("V")

KEPT_MS = 1_000


class RecentRead(Generic[K, V]):
    """A `GroupRead` that remembers its results for a second. Bound: the keys read within the last second."""

    def __init__(self, reads: GroupRead[K, V], monotonic_ms: Callable[[], int]) -> None:
        self._reads = reads
        self._monotonic_ms = monotonic_ms
        self._found: OrderedDict[K, tuple[int, V | None]] = OrderedDict()  # oldest first; None: absent

    async def get(self, keys: Collection[K], *, is_fresh: bool = True) -> Mapping[K, V]:
        """Return the values of the keys that have one. With `is_fresh=False` they may be a second old.

        Raises the errors of the read.
        """
        now_ms = self._monotonic_ms()
        while self._found and next(iter(self._found.values()))[0] <= now_ms - KEPT_MS:
            self._found.popitem(last=False)
        if is_fresh:
            return await self._reads.get(keys) if keys else {}
        kept = {
            key: found[1] for key in keys if (found := self._found.get(key)) is not None and found[0] > now_ms - KEPT_MS
        }
        missing = [key for key in keys if key not in kept]
        if missing:
            found_now = await self._reads.get(missing)
            for key in missing:
                kept[key] = found_now.get(key)
                self._found[key] = now_ms, kept[key]
                self._found.move_to_end(key)
        return {key: value for key, value in kept.items() if value is not None}

    def forget(self, keys: Iterable[K]) -> None:
        """Forget results that the caller has made outdated."""
        for key in keys:
            self._found.pop(key, None)
