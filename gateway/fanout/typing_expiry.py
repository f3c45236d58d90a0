"""Expiry of typing that this gateway's sockets are shown: every start gets an end. Pure; the clock is an argument.

chat_service ends typing 6 s after the last start, and passes on one start in 2 s. So 8 s after the last start that
arrived here, the end is overdue. It never arrives if the replica was killed, or if the line was lost with the broker;
then it is made here.
"""

from gateway.fanout.frame_peek import typing_frame
from shared.bus.delivery import Delivery

OVERDUE_S = 8.5
EXPECTED_MAX = 20_000


class TypingExpiry:
    """The ends that are expected, the next to expire first.

    At most 20,000; beyond that the oldest are dropped, and only chat_service ends them.
    """

    def __init__(self) -> None:
        self._overdue_at_s: dict[Delivery, float] = {}

    def note(self, delivery: Delivery, now_s: float) -> None:
        """Take a transient delivery. One that is not about typing changes nothing."""
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
        """Remove and return the ends that did not arrive in time; the caller delivers them."""
        ends: list[Delivery] = []
        for end, at_s in self._overdue_at_s.items():
            if at_s > now_s:
                break
            ends.append(end)
        for end in ends:
            del self._overdue_at_s[end]
        return ends
