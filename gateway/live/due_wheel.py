"""Items by the second in which they are due: a timing wheel. Pure; the clock is an argument."""

from typing import Generic, TypeVar

T = TypeVar("T")


class DueWheel(Generic[T]):
    """Returns each added item once, in the second after it became due.

    Cost: O(1) for each item added and each returned. An item that is not due costs nothing. Bound: each item is in it
    at most once.
    """

    def __init__(self) -> None:
        self._by_second: dict[int, dict[T, None]] = {}
        self._second_of: dict[T, int] = {}
        self._taken_s: int | None = None  # the last second that was taken

    def __len__(self) -> int:
        return len(self._second_of)

    def add(self, item: T, due_s: float) -> None:
        """Have an item returned once `due_s` has passed, or by the next `take` if it has already.

        A later call for the same item replaces its time.
        """
        self.discard(item)
        second = int(due_s) + 1
        if self._taken_s is not None:
            second = max(second, self._taken_s + 1)
        self._by_second.setdefault(second, {})[item] = None
        self._second_of[item] = second

    def discard(self, item: T) -> None:
        """Remove an item if it is still there."""
        if (second := self._second_of.pop(item, None)) is not None:
            del self._by_second[second][item]

    def take(self, now_s: float) -> list[T]:
        """Remove and return the items that are due, the earliest first."""
        now = int(now_s)
        seconds = sorted(second for second in self._by_second if second <= now)  # of a few dozen at most
        due = [item for second in seconds for item in self._by_second.pop(second)]
        for item in due:
            del self._second_of[item]
        self._taken_s = now
        return due
