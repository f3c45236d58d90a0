"""Detects that this process has stalled. Pure; the clock is an argument.

When a frozen process resumes, its socket still holds old bodies, which may contain messages of rooms that a user has
been removed from meanwhile. The process discards them, replaces the connection, and rechecks everything as after a
loss.
"""

from collections.abc import Callable

STALL_S = 2.0


class StallGuard:
    """`tick` is called twice a second while the process runs; `on_stall` replaces the connection."""

    def __init__(self, on_stall: Callable[[], None], now_s: float) -> None:
        self._on_stall = on_stall
        self._ticked_at_s = now_s
        self._is_stalled = False

    def tick(self, now_s: float) -> None:
        """Record that the process runs."""
        self._check(now_s)
        self._ticked_at_s = now_s

    def refuses(self, now_s: float) -> bool:
        """Return whether to discard a body: the process stalled, and the connection is the old one. HOT."""
        self._check(now_s)
        return self._is_stalled

    def disconnected(self) -> None:
        """Record that the connection is gone; the bodies of the next one are current."""
        self._is_stalled = False

    def connected(self, now_s: float) -> None:
        """Forget a stall between two connections: the next connection holds no old bodies."""
        self._ticked_at_s = now_s
        self._is_stalled = False

    def _check(self, now_s: float) -> None:
        if now_s - self._ticked_at_s > STALL_S and not self._is_stalled:
            self._ticked_at_s = now_s  # so that the next tick does not report the same stall again
            self._is_stalled = True
            self._on_stall()
