"""The rate limit over all replicas: one replica, the user's home, counts each user's messages.

A replica counts its own users at once, and asks the homes of the others once per batch. When a home does not answer in
time, the message is counted here: chat goes on, and the limit holds within this replica.
"""

import asyncio
from collections.abc import Callable, Collection

import msgspec

from chat_service import metrics
from chat_service.rate_window import SlidingWindow
from chat_service.rendezvous import owner_of
from shared.bus.bus import Bus
from shared.bus.consumer import Line
from shared.bus.query_server import decode_command
from shared.bus.topology import QueueSpec
from shared.commands.command import Caller, Command, reply_line
from shared.encoding import to_json
from shared.errors import Unavailable
from shared.ids import Prefix, new_id
from shared.protocol.wire_struct import WireStruct
from shared.telemetry import logs

log = logs.get(__name__)

ASK_TIMEOUT_MS = 500
QUEUE_EXPIRES_MS = 60_000
SYSTEM = Caller(user_id="system:chat")


class TakeRate(Command, frozen=True, kw_only=True, tag="rate.take"):
    """Count one message for each of `user_ids`. Reply: `RateTaken`."""

    user_ids: tuple[str, ...]


class GiveBackRate(Command, frozen=True, kw_only=True, tag="rate.give_back"):
    """Uncount one message of the user, which was a duplicate. No reply."""

    user_id: str


class RateTaken(WireStruct, frozen=True, kw_only=True):
    """The milliseconds to wait for each user id; 0 for a message within the rate."""

    wait_ms: tuple[int, ...]


_decoder: "msgspec.json.Decoder[TakeRate | GiveBackRate]" = msgspec.json.Decoder(TakeRate | GiveBackRate)


class RateLimiter:
    """Counts messages by user, wherever their rooms live."""

    def __init__(self, window: SlidingWindow, bus: Bus, node_id: str, clock_ms: Callable[[], int]) -> None:
        self._window = window
        self._bus = bus
        self._node_id = node_id
        self._clock_ms = clock_ms
        self._node_ids: Collection[str] = (node_id,)
        self.queue = QueueSpec(_queue_of(node_id), {"x-expires": QUEUE_EXPIRES_MS}, ())

    def nodes_changed(self, node_ids: Collection[str]) -> None:
        """Use these replicas as homes."""
        self._node_ids = node_ids or (self._node_id,)

    async def take(self, user_ids: list[str]) -> list[int]:
        """Count one message of each user, in order, and return the milliseconds to wait; 0 within the rate."""
        homes = [owner_of(user_id, self._node_ids) for user_id in user_ids]
        waits = [0] * len(user_ids)
        by_home: dict[str | None, list[int]] = {}
        for index, home in enumerate(homes):
            by_home.setdefault(home, []).append(index)

        async def ask(home: str | None, indexes: list[int]) -> None:
            answers = await self._take_at(home, [user_ids[index] for index in indexes])
            for index, wait_ms in zip(indexes, answers, strict=True):
                waits[index] = wait_ms

        await asyncio.gather(*(ask(home, indexes) for home, indexes in by_home.items()))
        return waits

    def give_back(self, user_id: str) -> None:
        """Uncount a message that was a duplicate."""
        home = owner_of(user_id, self._node_ids)
        if home in (None, self._node_id):
            self._window.give_back(user_id)
            return
        command = GiveBackRate(
            id=new_id(Prefix.COMMAND), deadline_ms=self._clock_ms() + ASK_TIMEOUT_MS, caller=SYSTEM, user_id=user_id
        )
        self._bus.publish("", _queue_of(str(home)), to_json(command), reply_to=self.queue.name)

    async def handle(self, lines: list[Line]) -> None:
        """Count for other replicas: the handler of `Bus.consume` on `queue`."""
        for line in lines:
            match decode_command(line, _decoder):
                case TakeRate() as command:
                    waits = tuple(self._take_here(command.user_ids))
                    self._bus.reply(line.reply_to or "", reply_line(command.id, RateTaken(wait_ms=waits)))
                case GiveBackRate() as command:
                    self._window.give_back(command.user_id)
                case _:
                    pass

    def _take_here(self, user_ids: Collection[str]) -> list[int]:
        at_ms = self._clock_ms()
        return [self._window.take(user_id, at_ms) for user_id in user_ids]

    async def _take_at(self, home: str | None, user_ids: list[str]) -> list[int]:
        if home in (None, self._node_id):
            return self._take_here(user_ids)
        command = TakeRate(
            id=new_id(Prefix.COMMAND),
            deadline_ms=self._clock_ms() + ASK_TIMEOUT_MS,
            caller=SYSTEM,
            user_ids=tuple(user_ids),
        )
        try:
            taken = await self._bus.request(_queue_of(str(home)), command, RateTaken, exchange="")
        except Unavailable as error:
            log.warning("rate_counted_here", reason=str(error))
            metrics.RATES_UNASKED.inc(len(user_ids))
            return self._take_here(user_ids)
        return list(taken.wait_ms)


def _queue_of(node_id: str) -> str:
    return f"rates.{node_id}"
