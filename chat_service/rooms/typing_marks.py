"""Typing marks: a start is forwarded at most every 2 s, and a mark expires 6 s after the user's last start. Pure."""

from itertools import takewhile
from typing import NamedTuple

from shared.bus.delivery import Delivery, DeliveryKind, room_channel, user_channel
from shared.protocol.server_frames import TypingMark, frame

PASS_ON_MS = 2_000
END_AFTER_MS = 6_000


class Typist(NamedTuple):
    """A user typing in a room. `direct` is the pair of users of a direct room."""

    room_id: str
    user_id: str
    direct: tuple[str, str] | None = None


class TypingMarks:
    """The users typing in the rooms of one partition. Bound: the users of the last 6 s."""

    def __init__(self) -> None:
        self._ends_at_ms: dict[Typist, int] = {}  # the next to end first
        self._passed_on_ms: dict[Typist, int] = {}  # when the last start was passed on, the oldest first
        self._shown: set[Typist] = set()

    def set(self, typist: Typist, is_typing: bool, now_ms: int) -> bool:
        """Apply a mark, and return whether to pass it on to the room."""
        self._ends_at_ms.pop(typist, None)
        if not is_typing:
            return self._hide(typist)
        self._ends_at_ms[typist] = now_ms + END_AFTER_MS
        if now_ms - self._passed_on_ms.get(typist, -PASS_ON_MS) < PASS_ON_MS:
            return False
        self._passed_on_ms.pop(typist, None)
        self._passed_on_ms[typist] = now_ms
        self._shown.add(typist)
        return True

    def ended(self, now_ms: int) -> list[Typist]:
        """Remove and return the typists that did not renew in time."""
        expired = _due(self._ends_at_ms, now_ms)
        for typist in expired:
            del self._ends_at_ms[typist]
        for typist in _due(self._passed_on_ms, now_ms - PASS_ON_MS):
            del self._passed_on_ms[typist]
        return [typist for typist in expired if self._hide(typist)]

    def all_shown(self) -> list[Typist]:
        """Return all users shown as typing, when the partition stops."""
        return list(self._shown)

    def _hide(self, typist: Typist) -> bool:
        was_shown = typist in self._shown
        self._shown.discard(typist)
        return was_shown


def typing_deliveries(typist: Typist, *, is_typing: bool) -> list[Delivery]:
    """Return the `chat:typing` deliveries for the others, on the room's channel or on a direct partner's."""
    mark = TypingMark(chatroom_id=typist.room_id, user_id=typist.user_id, is_typing=is_typing)
    data = frame("chat:typing", mark)
    if typist.direct is None:
        return [Delivery(room_channel(typist.room_id), DeliveryKind.TRANSIENT, 0, typist.user_id, data)]
    others = (user_id for user_id in typist.direct if user_id != typist.user_id)
    return [Delivery(user_channel(user_id), DeliveryKind.TRANSIENT, 0, "", data) for user_id in others]


def _due(times_ms: dict[Typist, int], now_ms: int) -> list[Typist]:
    """Return the typists at the front whose time has come."""
    return list(takewhile(lambda typist: times_ms[typist] <= now_ms, times_ms))
