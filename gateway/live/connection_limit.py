"""The limit on a user's connections across all gateways: the shell around `ConnectionCounts`."""

import asyncio
import time

import msgspec

from gateway.live.connection_counts import REFRESH_S, ConnectionCount, ConnectionCounts
from gateway.live.connections import Connections
from gateway.live.session import Close
from shared.bus.delivery import ControlKind, Delivery, DeliveryKind, user_channel
from shared.bus.publisher import Publisher
from shared.encoding import to_json
from shared.errors import ErrorCode, Refusal
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import error_frame
from shared.protocol.validation import FrameId
from shared.waiting import until_next

REPLIES_WITHIN_S = 0.05

_decoder = msgspec.json.Decoder(ConnectionCount)


class ConnectionLimit:
    """Counts a user's connections across gateways.

    Counts are announced on the user's own channel, so only gateways that serve the user receive them.
    """

    def __init__(self, connections: Connections, bus: Publisher, node_id: str, limit: int) -> None:
        self._connections = connections
        self._bus = bus
        self._counts = ConnectionCounts(node_id, limit)
        self._node_id = node_id
        self._announced: dict[str, int] = {}  # by local user: the count that was last announced

    async def query_others(self, user_id: str) -> bool:
        """If the user is near the limit, query the other gateways and wait 50 ms for their counts.

        Connections may have opened there at the same moment. Return whether it queried.
        """
        if not self._counts.is_near_limit(user_id, self._connections.open_count(user_id), time.monotonic()):
            return False
        self._announce(user_id, asks=True)
        await asyncio.sleep(REPLIES_WITHIN_S)
        return True

    def may_open(self, user_id: str) -> bool:
        """Return whether the user may have one more connection."""
        here = self._connections.open_count(user_id)
        return here + self._counts.count_elsewhere(user_id, time.monotonic()) < self._counts.limit

    def note_opened(self, user_id: str) -> None:
        """Announce the user's count after a connection has authenticated, if `is_worth_announcing`."""
        here = self._connections.open_count(user_id)
        if self._counts.is_worth_announcing(user_id, here, time.monotonic()):
            self._announce(user_id, asks=True)

    def note_closed(self, user_id: str) -> None:
        """Announce the user's count after a connection has closed.

        Only if a higher one was announced, and the user is near the limit or has no connection left here.
        """
        if user_id not in self._announced:  # HOT when thousands close at once; most users were never announced
            return
        here = self._connections.open_count(user_id)
        if self._announced[user_id] <= here:
            return
        if not here or self._counts.is_near_limit(user_id, here, time.monotonic()):
            self._announce(user_id)

    def observe(self, user_id: str, frame: bytes) -> None:
        """Process the announcement of another gateway. Raises msgspec.DecodeError."""
        now_s = time.monotonic()
        count = _decoder.decode(frame)
        if not self._counts.observe(user_id, count, now_s):
            return
        before = here = self._connections.open_count(user_id)
        while (newest := self._connections.newest_open(user_id)) is not None and self._counts.must_close(
            user_id, here, newest.opened_ms, now_s
        ):
            newest.close(too_many_connections(None))
            here = self._connections.open_count(user_id)
        if here and (count.asks or here < before):
            self._announce(user_id)

    async def run(self) -> None:
        """Repeat the counts of users near the limit, until cancelled."""
        while True:
            await until_next(REFRESH_S)
            now_s = time.monotonic()
            self._counts.expire(now_s)
            for user_id in self._announced.keys() | self._counts.users():  # a user in neither has one connection here
                here = self._connections.open_count(user_id)
                if here and self._counts.is_near_limit(user_id, here, now_s):
                    self._announce(user_id)

    def _announce(self, user_id: str, *, asks: bool = False) -> None:
        here = self._connections.open_count(user_id)
        if here:
            self._announced[user_id] = here
        else:
            self._announced.pop(user_id, None)
        newest = self._connections.newest_open(user_id)
        newest_ms = 0 if newest is None else newest.opened_ms
        data = to_json(ConnectionCount(self._node_id, here, newest_ms, asks))
        self._bus.deliver(Delivery(user_channel(user_id), DeliveryKind.CONTROL, 0, ControlKind.CONNECTION_COUNT, data))


def too_many_connections(id: FrameId | None) -> Close:
    """Return the `Close` action for a connection beyond the limit."""
    refusal = Refusal(ErrorCode.RATE_LIMITED, "too many connections of this user")
    return Close(CloseCode.OVERLOADED, "too many connections", error_frame(refusal, "auth", id))
