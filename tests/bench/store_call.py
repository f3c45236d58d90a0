"""A call of a store's method whose queries are explained."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StoreCall:
    """A call of a store's method.

    `spare` is the reason why it may examine far more than it returns, `whole` why it may even scan a collection.
    """

    name: str
    run: Callable[[], Awaitable[Any]]
    spare: str = ""
    note: str = ""
    whole: str = ""

    @property
    def reason(self) -> str:
        """Return why the call may examine more than it returns; empty if it may not."""
        return self.spare or self.whole
