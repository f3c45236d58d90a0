"""The values that a thing may have, when some changes of it were not answered. Pure."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Possible(Generic[T]):
    """All values that are possible now. Changes come one after another; an unanswered one may have taken effect."""

    def __init__(self, value: T) -> None:
        self.values = {value}

    def confirm(self, value: T) -> None:
        """Note that a change is in effect."""
        self.values = {value}

    def attempt(self, change: Callable[[T], T]) -> None:
        """Note that a change may be in effect."""
        self.values |= {change(value) for value in self.values}

    def is_possible(self, value: T) -> bool:
        """Return whether this may be the value."""
        return value in self.values
