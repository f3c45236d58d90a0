"""Exponential backoff for retries. Pure."""


class Backoff:
    """A retry delay that doubles from `first_s` up to `max_s`. The caller sleeps, with jitter if needed."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return the delay before the next attempt, in seconds, and double the following one."""
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, self._max_s)
        return delay_s

    def reset(self) -> None:
        """Restart at `first_s`. Call it after a success."""
        self._next_s = self._first_s
