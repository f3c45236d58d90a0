"""Who is shown typing to the sockets of this gateway, so that no start stays without an end. Pure; time comes in.

chat_service ends typing 6 s after its last start, of which it passes on one in 2 s: so 8 s after the last start that
came here the end is overdue. It never comes when the replica was killed, or the line lost with the broker; then it is
made here.
"""

from shared.bus.delivery import Delivery

OVERDUE_S = 8.5
SHOWN_MAX = 20_000

_HEAD = b'{"type":"chat:typing"'
_START = b'"isTyping":true}}'
_END = b'"isTyping":false}}'


class ShownTyping:
    """The ends to come, the next to be overdue first. At most 20,000; beyond, the oldest are left to chat_service."""

    def __init__(self) -> None:
        self._overdue_at_s: dict[Delivery, float] = {}

    def note(self, delivery: Delivery, now_s: float) -> None:
        """Take a transient delivery: a start of typing, an end, or anything else."""
        if not delivery.frame.startswith(_HEAD):
            return
        is_start = delivery.frame.endswith(_START)
        end = delivery._replace(frame=delivery.frame.removesuffix(_START) + _END) if is_start else delivery
        self._overdue_at_s.pop(end, None)
        if is_start:
            self._overdue_at_s[end] = now_s + OVERDUE_S
            if len(self._overdue_at_s) > SHOWN_MAX:
                del self._overdue_at_s[next(iter(self._overdue_at_s))]

    def overdue(self, now_s: float) -> list[Delivery]:
        """The ends that have not come in time, to be delivered now."""
        ends: list[Delivery] = []
        for end, at_s in self._overdue_at_s.items():
            if at_s > now_s:
                break
            ends.append(end)
        for end in ends:
            del self._overdue_at_s[end]
        return ends
