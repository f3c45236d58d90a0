"""Exponential backoff between attempts. Pure."""


class Backoff:
    """Pauses that double from `first_s` up to `max_s`."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return the pause before the next attempt, in seconds, and double the one after it."""
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self._max_s)
        return pause_s

    def reset(self) -> None:
        """Start again at `first_s`, after a success."""
        self._next_s = self._first_s
