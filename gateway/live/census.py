"""Census: how many connections users have on other gateways, as far as these have announced. Pure; time is an argument.

A user's connections are counted over all gateways without a request on the common path. A gateway announces a user's
count when a connection opens beside others that it knows of, here or elsewhere; gateways with connections of that user
reply with their own counts. So users with one connection, nearly all, cost nothing, and when the next one opens each
gateway knows all counts. Near the limit it queries the others once more and waits 50 ms. Counts near the limit are
announced again every 5 s. A count that was not repeated for 15 s expires: its gateway has ended.
Connections that open at the same moment can exceed the limit; then the newest ones are closed.
"""

import msgspec

REFRESH_S = 5.0
EXPIRES_AFTER_S = 15.0
FEW = 4


class SocketCount(msgspec.Struct, frozen=True):
    """What one gateway announces about a user, the frame of a CONNECTION_COUNT delivery.

    `newest_ms`: when the newest of the sockets opened. `asks`: the others shall reply with their counts.
    """

    node_id: str
    count: int
    newest_ms: int
    asks: bool = False


class Census:
    """The counts of other gateways. Bounded by what they announce in 15 s."""

    def __init__(self, node_id: str, limit: int) -> None:
        self.limit = limit
        self._node_id = node_id
        self._counts: dict[str, dict[str, tuple[SocketCount, float]]] = {}  # by user and node: a count, and when

    def observe(self, user_id: str, count: SocketCount, now_s: float) -> bool:
        """Record an announced count. Return whether it is from another gateway."""
        if count.node_id == self._node_id:
            return False
        counts = self._counts.setdefault(user_id, {})
        counts.pop(count.node_id, None)
        if count.count:
            counts[count.node_id] = (count, now_s)
        elif not counts:
            del self._counts[user_id]
        return True

    def elsewhere(self, user_id: str, now_s: float) -> int:
        """Return how many connections the user has on other gateways."""
        return sum(count.count for count in self._valid(user_id, now_s))

    def is_near_limit(self, user_id: str, here: int, now_s: float) -> bool:
        """Return whether the other gateways should know every change."""
        return here + self.elsewhere(user_id, now_s) >= max(self.limit / 2, 2)

    def is_worth_announcing(self, user_id: str, here: int, now_s: float) -> bool:
        """Return whether to announce a new connection: if the user has others, or always where few are allowed."""
        return here > 1 or self.limit < FEW or self.elsewhere(user_id, now_s) > 0

    def must_close(self, user_id: str, here: int, newest_ms: int, now_s: float) -> bool:
        """Return whether the limit is exceeded and the newest connection of all is here."""
        counts = self._valid(user_id, now_s)
        if here == 0 or here + sum(count.count for count in counts) <= self.limit:
            return False
        return all((newest_ms, self._node_id) > (count.newest_ms, count.node_id) for count in counts)

    def expire(self, now_s: float) -> None:
        """Delete the counts that have expired."""
        for user_id in list(self._counts):
            counts = self._counts[user_id]
            for node_id, (_, at_s) in list(counts.items()):
                if now_s - at_s >= EXPIRES_AFTER_S:
                    del counts[node_id]
            if not counts:
                del self._counts[user_id]

    def _valid(self, user_id: str, now_s: float) -> list[SocketCount]:
        counts = self._counts.get(user_id)
        return [] if counts is None else [count for count, at_s in counts.values() if now_s - at_s < EXPIRES_AFTER_S]
