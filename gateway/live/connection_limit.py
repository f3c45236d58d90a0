"""The sockets of each user: how many there may be over all gateways. The shell around `Census`."""

import asyncio
import time

import msgspec

from gateway.live.census import REFRESH_S, Census, SocketCount
from gateway.live.connections import Connections, Socket
from gateway.live.session import Close
from shared.bus.delivery import Delivery, DeliveryClass, user_channel
from shared.bus.publisher import Publisher
from shared.encoding import to_json
from shared.errors import ErrorCode, Refusal
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import error_frame
from shared.protocol.validation import FrameId

ANSWERED_AFTER_S = 0.05

_decoder = msgspec.json.Decoder(SocketCount)


class UserSockets:
    """Of one gateway process. What is told goes over the users' own channels, so to who has sockets of them."""

    def __init__(self, connections: Connections, bus: Publisher, node_id: str, most: int) -> None:
        self._connections = connections
        self._bus = bus
        self._census = Census(node_id, most)
        self._node_id = node_id
        self._told: dict[str, int] = {}  # what the others believe, of users who are here

    async def hear(self, user_id: str) -> bool:
        """Near the limit, give others the time to tell: one may have opened there this moment. Returns whether it was
        waited for."""
        here = self._open(user_id)
        if not self._census.is_near_limit(user_id, len(here), time.monotonic()):
            return False
        self._announce(user_id, here, asks=True)
        await asyncio.sleep(ANSWERED_AFTER_S)
        return True

    def may_open(self, user_id: str) -> bool:
        """Whether the user may have one more."""
        return len(self._open(user_id)) + self._census.elsewhere(user_id, time.monotonic()) < self._census.most

    def opened(self, user_id: str) -> None:
        """One more has authenticated."""
        here = self._open(user_id)
        if self._census.is_worth_telling(user_id, len(here), time.monotonic()):
            self._announce(user_id, here, asks=True)

    def closed(self, user_id: str) -> None:
        """One is gone."""
        if user_id not in self._told:  # HOT when thousands go at once: nearly all have told nobody
            return
        here = self._open(user_id)
        if self._told[user_id] <= len(here):
            return
        if not here or self._census.is_near_limit(user_id, len(here), time.monotonic()):
            self._announce(user_id, here)

    def heard(self, user_id: str, frame: bytes) -> None:
        """A gateway has told of its sockets. Raises msgspec.DecodeError."""
        now_s = time.monotonic()
        told = _decoder.decode(frame)
        if not self._census.heard(user_id, told, now_s):
            return
        here = self._open(user_id)
        count = len(here)
        while here and self._census.is_to_close(user_id, len(here), here[-1].opened_ms, now_s):
            here.pop().close(too_many(None))
        if here and (told.asks or len(here) < count):
            self._announce(user_id, here)

    async def run(self) -> None:
        """Tell again of users near the limit, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            now_s = time.monotonic()
            self._census.forget_old(now_s)
            for user_id, sockets in list(self._connections.by_user.items()):
                if self._census.is_near_limit(user_id, len(sockets), now_s):
                    self._announce(user_id, self._open(user_id))

    def _open(self, user_id: str) -> list[Socket]:
        """The newest last."""
        sockets = self._connections.by_user.get(user_id, ())
        return sorted((socket for socket in sockets if not socket.closing), key=lambda socket: socket.opened_ms)

    def _announce(self, user_id: str, here: list[Socket], *, asks: bool = False) -> None:
        if here:
            self._told[user_id] = len(here)
        else:
            self._told.pop(user_id, None)
        newest_ms = here[-1].opened_ms if here else 0
        data = to_json(SocketCount(self._node_id, len(here), newest_ms, asks))
        self._bus.deliver(Delivery(user_channel(user_id), DeliveryClass.CONTROL, 0, "sockets", data))


def too_many(id: FrameId | None) -> Close:
    """How a socket is closed that is one too many."""
    refusal = Refusal(ErrorCode.RATE_LIMITED, "too many connections of this user")
    return Close(CloseCode.OVERLOADED, "too many connections", error_frame(refusal, "auth", id))
