"""Items by the second in which they are due: a timing wheel. Pure; the clock is an argument."""

from typing import Generic, TypeVar

T = TypeVar("T")


class DueWheel(Generic[T]):
    """Returns each added item once, in the second after it became due. Cost: O(1) per item and second, none while idle.

    It holds what was added and is not due yet; an item cannot be removed, so the caller skips those that are gone.
    """

    def __init__(self) -> None:
        self._by_second: dict[int, list[T]] = {}
        self._taken_s: int | None = None  # the last second that was taken

    def add(self, item: T, due_s: float) -> None:
        """Have an item returned once `due_s` has passed, or by the next `take` if it has already."""
        second = int(due_s) + 1
        if self._taken_s is not None:
            second = max(second, self._taken_s + 1)
        self._by_second.setdefault(second, []).append(item)

    def take(self, now_s: float) -> list[T]:
        """Remove and return the items that are due."""
        now = int(now_s)
        due: list[T] = []
        for second in [second for second in self._by_second if second <= now]:  # a few: items are due within seconds
            due += self._by_second.pop(second)
        self._taken_s = now
        return due
