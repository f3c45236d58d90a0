"""Who types where: a start is passed on at most every 2 s, and ends by itself 6 s after the last one. Pure."""

from typing import NamedTuple

PASS_ON_MS = 2_000
END_AFTER_MS = 6_000


class Typist(NamedTuple):
    """A user typing in a room. `direct` is the pair of users of a direct room."""

    room_id: str
    user_id: str
    direct: tuple[str, str] | None = None


class TypingMarks:
    """Who is typing in the rooms of one partition. Bounded by the users of the last 6 s."""

    def __init__(self) -> None:
        self._ends_at_ms: dict[Typist, int] = {}  # whose end comes first stands first
        self._passed_on_ms: dict[Typist, int] = {}

    def set(self, typist: Typist, is_typing: bool, now_ms: int) -> bool:
        """Take a mark; returns whether the room's others are to be told."""
        if not is_typing:
            self._passed_on_ms.pop(typist, None)
            return self._ends_at_ms.pop(typist, None) is not None
        self._ends_at_ms.pop(typist, None)
        self._ends_at_ms[typist] = now_ms + END_AFTER_MS
        passed_on_ms = self._passed_on_ms.get(typist)
        if passed_on_ms is not None and now_ms - passed_on_ms < PASS_ON_MS:
            return False
        self._passed_on_ms[typist] = now_ms
        return True

    def ended(self, now_ms: int) -> list[Typist]:
        """Those who have not renewed in time, and no longer type."""
        over: list[Typist] = []
        for typist, ends_at_ms in self._ends_at_ms.items():
            if ends_at_ms > now_ms:
                break
            over.append(typist)
        for typist in over:
            del self._ends_at_ms[typist]
            self._passed_on_ms.pop(typist, None)
        return over
