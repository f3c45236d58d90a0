"""Exponential backoff for retries. Pure."""


class Backoff:
    """A retry delay that doubles from `first_s` up to `max_s`. The caller sleeps, and adds jitter if it wants any."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return the delay before the next try, in seconds, and double the one after it."""
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, self._max_s)
        return delay_s

    def reset(self) -> None:
        """Start at `first_s` again; call it after a success."""
        self._next_s = self._first_s
