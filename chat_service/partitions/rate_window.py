"""Sliding-window rate limit of messages per user. Pure; the clock is an argument."""

from collections import OrderedDict


class SlidingWindow:
    """At most `limit` messages of one user in any `window_ms`. Exact, and idempotent by command id.

    Bound: `limit` ids per user, and only users of the last window.
    """

    def __init__(self, limit: int, window_ms: int = 60_000) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._sent: OrderedDict[str, dict[str, int]] = OrderedDict()  # by user: times by command

    def charge(self, user_id: str, command_id: str, now_ms: int) -> int:
        """Charge a message once, however often its command arrives.

        Return 0, or the milliseconds to wait when the window is full; then the message is not charged.
        """
        self._forget(now_ms)
        sent = self._sent.setdefault(user_id, {})
        while sent and (oldest := next(iter(sent))) and sent[oldest] <= now_ms - self._window_ms:
            del sent[oldest]
        if command_id in sent:
            return 0
        if len(sent) >= self._limit:
            return next(iter(sent.values())) + self._window_ms - now_ms
        sent[command_id] = now_ms
        self._sent.move_to_end(user_id)
        return 0

    def refund(self, user_id: str, command_id: str) -> None:
        """Undo the charge of a message that was a repeat."""
        self._sent.get(user_id, {}).pop(command_id, None)

    def _forget(self, now_ms: int) -> None:
        while self._sent:
            user_id, sent = next(iter(self._sent.items()))
            if sent and next(reversed(sent.values())) > now_ms - self._window_ms:
                return
            del self._sent[user_id]
