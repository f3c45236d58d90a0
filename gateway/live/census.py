"""How many sockets users have on other gateways, as far as these have told. Pure; time comes in.

A user's sockets are counted over all gateways, and hardly anybody waits for it. A gateway tells of a user's sockets
when another one opens beside those that it knows of, here or elsewhere; who has sockets of that user answers with its
own count. So users with one socket, nearly all, cost nothing, and by the time the next socket opens each gateway
knows of all; near the limit it asks once more and waits 50 ms. Counts near the limit are told again every 5 s; what
was not told again for 15 s is of a gateway that is gone, and counts no more. Sockets that open at the same moment can
be too many: then the newest close.
"""

import msgspec

REFRESH_S = 5.0
FORGOTTEN_AFTER_S = 15.0
FEW = 4


class SocketCount(msgspec.Struct, frozen=True):
    """What one gateway tells of a user. `newest_ms`: when the newest of the sockets opened. `asks`: tell me yours."""

    node_id: str
    count: int
    newest_ms: int
    asks: bool = False


class Census:
    """The counts of other gateways. Bounded by what these tell in 15 s."""

    def __init__(self, node_id: str, most: int) -> None:
        self.most = most
        self._node_id = node_id
        self._heard: dict[str, dict[str, tuple[SocketCount, float]]] = {}  # by user and node: what, and when

    def heard(self, user_id: str, told: SocketCount, now_s: float) -> bool:
        """Take what a gateway tells. Returns whether it is another one."""
        if told.node_id == self._node_id:
            return False
        counts = self._heard.setdefault(user_id, {})
        counts.pop(told.node_id, None)
        if told.count:
            counts[told.node_id] = (told, now_s)
        elif not counts:
            del self._heard[user_id]
        return True

    def elsewhere(self, user_id: str, now_s: float) -> int:
        """How many sockets the user has on other gateways."""
        return sum(told.count for told in self._counting(user_id, now_s))

    def is_near_limit(self, user_id: str, here: int, now_s: float) -> bool:
        """Whether others should know of every change."""
        return here + self.elsewhere(user_id, now_s) >= max(self.most / 2, 2)

    def is_worth_telling(self, user_id: str, here: int, now_s: float) -> bool:
        """Whether a socket that opened makes more than one; where few are allowed, the first one counts too."""
        return here > 1 or self.most < FEW or self.elsewhere(user_id, now_s) > 0

    def is_to_close(self, user_id: str, here: int, newest_ms: int, now_s: float) -> bool:
        """Whether there are too many in all, and the newest one is here."""
        counting = self._counting(user_id, now_s)
        if here == 0 or here + sum(told.count for told in counting) <= self.most:
            return False
        return all((newest_ms, self._node_id) > (told.newest_ms, told.node_id) for told in counting)

    def forget_old(self, now_s: float) -> None:
        """Let go of what counts no more."""
        for user_id in list(self._heard):
            counts = self._heard[user_id]
            for node_id, (_, at_s) in list(counts.items()):
                if now_s - at_s >= FORGOTTEN_AFTER_S:
                    del counts[node_id]
            if not counts:
                del self._heard[user_id]

    def _counting(self, user_id: str, now_s: float) -> list[SocketCount]:
        counts = self._heard.get(user_id)
        return [] if counts is None else [told for told, at_s in counts.values() if now_s - at_s < FORGOTTEN_AFTER_S]
