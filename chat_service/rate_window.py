"""The rate limit of one user: messages per user per minute. Pure; time is injected."""

from collections import OrderedDict, deque


class SlidingWindow:
    """At most `limit` messages of one user in any `window_ms`. Exact: it keeps the time of each message.

    Bound: `limit` times per user, and only users of the last window.
    """

    def __init__(self, limit: int, window_ms: int = 60_000) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._sent: OrderedDict[str, deque[int]] = OrderedDict()  # the most recent sender last

    def take(self, user_id: str, now_ms: int) -> int:
        """Count one message and return 0; if the window is full, return the milliseconds to wait instead."""
        self._forget(now_ms)
        sent = self._sent.get(user_id)
        if sent is None:
            sent = self._sent[user_id] = deque()
        while sent and sent[0] <= now_ms - self._window_ms:
            sent.popleft()
        if len(sent) >= self._limit:
            return sent[0] + self._window_ms - now_ms
        sent.append(now_ms)
        self._sent.move_to_end(user_id)
        return 0

    def give_back(self, user_id: str) -> None:
        """Uncount the user's last message, which was a duplicate."""
        if sent := self._sent.get(user_id):
            sent.pop()

    def _forget(self, now_ms: int) -> None:
        while self._sent:
            user_id, sent = next(iter(self._sent.items()))
            if sent and sent[-1] > now_ms - self._window_ms:
                return
            del self._sent[user_id]
