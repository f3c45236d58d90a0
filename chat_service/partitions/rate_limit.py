"""The rate limit over all replicas: one of them, the user's home, counts all messages of a user.

A replica counts its own users in memory and queries the homes of the others once per batch. If a home does not answer
in time, the message is counted here instead: availability first, and the limit still applies within this replica.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec

from chat_service import metrics
from chat_service.partitions.ownership import ReplicaView
from chat_service.partitions.rate_window import SlidingWindow
from chat_service.partitions.rendezvous import owner_of
from shared.bus.bus import Bus
from shared.commands.command import Caller, Command, reply_line
from shared.encoding import to_json
from shared.errors import Malformed, Refusal, Unavailable
from shared.ids import Prefix, new_id
from shared.protocol.validation import decode
from shared.protocol.wire_struct import WireStruct
from shared.telemetry import logs
from shared.times import now_ms

log = logs.get(__name__)

ASK_TIMEOUT_MS = 500
QUEUE_PREFIX = "rates"
SYSTEM = Caller(user_id="system:chat")


class Charge(NamedTuple):
    """One message to count: its sender, and the id of its command, under which it counts once."""

    user_id: str
    command_id: str


class TakeRate(Command, frozen=True, kw_only=True, tag="rate.take"):
    """Count these messages. Reply: `RateTaken`, to the queue `reply_to`."""

    charges: tuple[Charge, ...]
    reply_to: str


class GiveBackRate(Command, frozen=True, kw_only=True, tag="rate.give_back"):
    """A message was a repeat and does not count. No reply."""

    charge: Charge


class RateTaken(WireStruct, frozen=True, kw_only=True):
    """For each charge the milliseconds to wait; 0 where the message was within the limit."""

    wait_ms: tuple[int, ...]


_decoder: "msgspec.json.Decoder[TakeRate | GiveBackRate]" = msgspec.json.Decoder(TakeRate | GiveBackRate)


class RateLimiter:
    """Counts messages by user, wherever their rooms live."""

    def __init__(
        self,
        window: SlidingWindow,
        bus: Bus,
        replicas: ReplicaView,
        clock_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        self._window = window
        self._bus = bus
        self._replicas = replicas
        self._clock_ms = clock_ms
        self._monotonic_ms = monotonic_ms
        bus.private_queue(QUEUE_PREFIX, self._on_body)

    async def take(self, charges: list[Charge]) -> list[int]:
        """Count messages, in order; return the milliseconds to wait, 0 for those within the limit."""
        waits = [0] * len(charges)
        by_home: dict[str | None, list[int]] = {}
        for index, charge in enumerate(charges):
            by_home.setdefault(self._home_of(charge.user_id), []).append(index)

        async def ask(home: str | None, indexes: list[int]) -> None:
            answers = await self._take_at(home, [charges[index] for index in indexes])
            for index, wait_ms in zip(indexes, answers, strict=True):
                waits[index] = wait_ms

        if by_home.keys() == {None}:
            return self._take_here(charges)
        await asyncio.gather(*(ask(home, indexes) for home, indexes in by_home.items()))
        return waits

    def give_back(self, charge: Charge) -> None:
        """Take back the count of a message that turned out to be a repeat."""
        queue = self._queue_of(self._home_of(charge.user_id))
        if queue is None:
            self._window.give_back(charge.user_id, charge.command_id)
            return
        command = GiveBackRate(
            id=new_id(Prefix.COMMAND), deadline_ms=now_ms() + ASK_TIMEOUT_MS, caller=SYSTEM, charge=charge
        )
        self._bus.send("", queue, to_json(command))

    def _on_body(self, body: bytes) -> None:
        """Count for another replica. The handler of this replica's private queue."""
        try:
            command = decode(body, _decoder)
        except (Malformed, Refusal) as error:
            log.error("bad_rate_command", reason=str(error))
            return
        match command:
            case TakeRate():
                taken = RateTaken(wait_ms=tuple(self._take_here(command.charges)))
                self._bus.send("", command.reply_to, reply_line(command.id, taken))
            case GiveBackRate():
                self._window.give_back(command.charge.user_id, command.charge.command_id)

    def _home_of(self, user_id: str) -> str | None:
        """Return the home of a user; None means this replica."""
        home = owner_of(user_id, self._replicas.live_nodes(self._monotonic_ms()))
        return None if home == self._replicas.node else home

    def _queue_of(self, home: str | None) -> str | None:
        """Return the queue of another replica's counts; None for this replica and for one that is gone."""
        queue = None if home is None else self._replicas.queue_of(home)
        return None if queue is None else f"{QUEUE_PREFIX}.{queue.partition('.')[2]}"

    def _take_here(self, charges: Collection[Charge]) -> list[int]:
        at_ms = self._clock_ms()
        return [self._window.take(charge.user_id, charge.command_id, at_ms) for charge in charges]

    async def _take_at(self, home: str | None, charges: list[Charge]) -> list[int]:
        queue = self._queue_of(home)
        if queue is None:
            return self._take_here(charges)
        command = TakeRate(
            id=new_id(Prefix.COMMAND),
            deadline_ms=now_ms() + ASK_TIMEOUT_MS,
            caller=SYSTEM,
            charges=tuple(charges),
            reply_to=self._bus.reply_queue,
        )
        try:
            taken = await self._bus.request_transient(queue, command, RateTaken)
        except Unavailable as error:
            log.warning("rate_counted_here", reason=str(error))
            metrics.RATES_UNASKED.inc(len(charges))
            return self._take_here(charges)
        return list(taken.wait_ms)
