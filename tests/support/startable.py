"""The interface of an object that a `with` block starts and stops."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """Started on entry and stopped on exit, also when the start fails half-way."""

    @abstractmethod
    def start(self) -> None:
        """Start, and return once ready."""

    @abstractmethod
    def stop(self) -> None:
        """Stop cleanly. No effect if it does not run."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
