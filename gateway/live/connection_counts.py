"""Users' connection counts on other gateways, as announced by these gateways. Pure; time is an argument.

A user's connections are counted across gateways without a request on the common path. A gateway announces a user's
count when it opens a second or further connection of the user, or a first one while it knows of others elsewhere. The
other gateways with connections of that user reply with their own counts. Most users have one connection and so cost
nothing. Single connections on different gateways are not noticed, unless the limit is below 4: then every connection is
announced.

Near the limit, a gateway queries the others again and waits 50 ms. Counts near the limit are announced every 5 s. A
count expires if it is not repeated for 15 s, because its gateway has ended. Connections that open at the same moment
can exceed the limit; then the newest ones are closed.
"""

from collections.abc import KeysView

import msgspec

REFRESH_S = 5.0
EXPIRES_AFTER_S = 15.0
FEW = 4


class ConnectionCount(msgspec.Struct, frozen=True):
    """A gateway's announcement of one user's connection count: the frame of a CONNECTION_COUNT delivery.

    `newest_ms` is when the newest of the connections opened. `asks` requests the other gateways' counts.
    """

    node_id: str
    count: int
    newest_ms: int
    asks: bool = False


class ConnectionCounts:
    """The counts of other gateways. Bound: the counts announced in the last 15 s."""

    def __init__(self, node_id: str, limit: int) -> None:
        self.limit = limit
        self._node_id = node_id
        self._counts: dict[str, dict[str, tuple[ConnectionCount, float]]] = {}  # by user and node: a count, and when

    def observe(self, user_id: str, count: ConnectionCount, now_s: float) -> bool:
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

    def count_elsewhere(self, user_id: str, now_s: float) -> int:
        """Return the number of the user's connections on other gateways."""
        return sum(count.count for count in self._valid(user_id, now_s))

    def is_near_limit(self, user_id: str, here: int, now_s: float) -> bool:
        """Return whether the user has at least half of the allowed connections, and at least 2, on all gateways."""
        return here + self.count_elsewhere(user_id, now_s) >= max(self.limit / 2, 2)

    def is_worth_announcing(self, user_id: str, here: int, now_s: float) -> bool:
        """Return whether to announce a new connection: if the user has others, or if the limit is very low."""
        return here > 1 or self.limit < FEW or self.count_elsewhere(user_id, now_s) > 0

    def must_close(self, user_id: str, here: int, newest_ms: int, now_s: float) -> bool:
        """Return whether the limit is exceeded and the newest connection of all is here."""
        counts = self._valid(user_id, now_s)
        if here == 0 or here + sum(count.count for count in counts) <= self.limit:
            return False
        return all((newest_ms, self._node_id) > (count.newest_ms, count.node_id) for count in counts)

    def users(self) -> KeysView[str]:
        """Return the users with connections elsewhere."""
        return self._counts.keys()

    def expire(self, now_s: float) -> None:
        """Delete the counts that have expired."""
        for user_id in list(self._counts):
            counts = self._counts[user_id]
            for node_id, (_, at_s) in list(counts.items()):
                if now_s - at_s >= EXPIRES_AFTER_S:
                    del counts[node_id]
            if not counts:
                del self._counts[user_id]

    def _valid(self, user_id: str, now_s: float) -> list[ConnectionCount]:
        counts = self._counts.get(user_id)
        return [] if counts is None else [count for count, at_s in counts.values() if now_s - at_s < EXPIRES_AFTER_S]
