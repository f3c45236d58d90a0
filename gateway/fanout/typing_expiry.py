"""Expiry of typing marks: the gateway ends a mark whose end does not arrive. Pure; the clock is an argument.

chat_service ends typing 6 s after the last start, and forwards at most one start every 2 s. So the end arrives at
most 8 s after the last start that arrived here, and is overdue after 8.5 s. It never arrives if the replica was killed
or the line was lost; then the gateway creates it.
"""

from gateway.fanout.frame_peek import typing_frame
from shared.bus.delivery import Delivery

OVERDUE_S = 8.5
EXPECTED_MAX = 20_000


class TypingExpiry:
    """The expected end of each typing mark, the next to expire first.

    Bound: 20,000 ends. Beyond that the oldest are dropped, and only chat_service ends their marks.
    """

    def __init__(self) -> None:
        self._overdue_at_s: dict[Delivery, float] = {}

    def note(self, delivery: Delivery, now_s: float) -> None:
        """Note the start or end of typing that a transient delivery shows; ignore any other."""
        shown = typing_frame(delivery.frame)
        if shown is None:
            return
        end = delivery._replace(frame=shown.end)
        self._overdue_at_s.pop(end, None)
        if shown.is_start:
            self._overdue_at_s[end] = now_s + OVERDUE_S
            if len(self._overdue_at_s) > EXPECTED_MAX:
                del self._overdue_at_s[next(iter(self._overdue_at_s))]

    def overdue(self, now_s: float) -> list[Delivery]:
        """Remove and return the overdue ends; the caller delivers them."""
        ends: list[Delivery] = []
        for end, at_s in self._overdue_at_s.items():
            if at_s > now_s:
                break
            ends.append(end)
        for end in ends:
            del self._overdue_at_s[end]
        return ends
