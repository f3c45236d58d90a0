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
from chat_service.partitions.rendezvous import preferred_node
from shared.bus.bus import Bus
from shared.bus.private_queue import sibling_queue
from shared.commands.command import Caller, ServiceRequest, reply_line
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
    """One message to charge to its sender. The id of its command makes the charge idempotent."""

    user_id: str
    command_id: str


class ChargeMessages(ServiceRequest, frozen=True, kw_only=True, tag="rate.take"):
    """Charge messages to their senders. Reply: `MessagesCharged`, to the queue `reply_to`."""

    charges: tuple[Charge, ...]
    reply_to: str


class RefundMessage(ServiceRequest, frozen=True, kw_only=True, tag="rate.give_back"):
    """Undo the charge of a message that was a repeat. No reply."""

    charge: Charge


class MessagesCharged(WireStruct, frozen=True, kw_only=True):
    """For each charge the milliseconds to wait; 0 for a message within the limit."""

    wait_ms: tuple[int, ...]


_decoder: "msgspec.json.Decoder[ChargeMessages | RefundMessage]" = msgspec.json.Decoder(ChargeMessages | RefundMessage)


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

    async def charge(self, charges: list[Charge]) -> list[int]:
        """Charge messages, in order; return the milliseconds to wait, 0 for those within the limit."""
        waits = [0] * len(charges)
        by_home: dict[str | None, list[int]] = {}
        for index, charge in enumerate(charges):
            by_home.setdefault(self._home_of(charge.user_id), []).append(index)

        async def ask(home: str | None, indexes: list[int]) -> None:
            answers = await self._charge_at(home, [charges[index] for index in indexes])
            for index, wait_ms in zip(indexes, answers, strict=True):
                waits[index] = wait_ms

        if by_home.keys() == {None}:
            return self._charge_here(charges)
        await asyncio.gather(*(ask(home, indexes) for home, indexes in by_home.items()))
        return waits

    def refund(self, charge: Charge) -> None:
        """Undo the charge of a message that was a repeat."""
        queue = self._queue_of(self._home_of(charge.user_id))
        if queue is None:
            self._window.refund(charge.user_id, charge.command_id)
            return
        command = RefundMessage(
            id=new_id(Prefix.COMMAND), deadline_ms=now_ms() + ASK_TIMEOUT_MS, caller=SYSTEM, charge=charge
        )
        self._bus.send("", queue, to_json(command))

    def _on_body(self, body: bytes) -> None:
        """Charge for another replica. The handler of this replica's private queue."""
        try:
            command = decode(body, _decoder)
        except (Malformed, Refusal) as error:
            log.error("bad_rate_command", reason=str(error))
            return
        match command:
            case ChargeMessages():
                charged = MessagesCharged(wait_ms=tuple(self._charge_here(command.charges)))
                self._bus.send("", command.reply_to, reply_line(command.id, charged))
            case RefundMessage():
                self._window.refund(command.charge.user_id, command.charge.command_id)

    def _home_of(self, user_id: str) -> str | None:
        """Return the home of a user; None means this replica."""
        home = preferred_node(user_id, self._replicas.live_nodes(self._monotonic_ms()))
        return None if home == self._replicas.node else home

    def _queue_of(self, home: str | None) -> str | None:
        """Return the queue of another replica's rate limiter; None for this replica and for one that is gone."""
        queue = None if home is None else self._replicas.queue_of(home)
        return None if queue is None else sibling_queue(queue, QUEUE_PREFIX)

    def _charge_here(self, charges: Collection[Charge]) -> list[int]:
        at_ms = self._clock_ms()
        return [self._window.charge(charge.user_id, charge.command_id, at_ms) for charge in charges]

    async def _charge_at(self, home: str | None, charges: list[Charge]) -> list[int]:
        queue = self._queue_of(home)
        if queue is None:
            return self._charge_here(charges)
        command = ChargeMessages(
            id=new_id(Prefix.COMMAND),
            deadline_ms=now_ms() + ASK_TIMEOUT_MS,
            caller=SYSTEM,
            charges=tuple(charges),
            reply_to=self._bus.reply_queue,
        )
        try:
            charged = await self._bus.request_transient(queue, command, MessagesCharged)
        except Unavailable as error:
            log.warning("rate_counted_here", reason=str(error))
            metrics.RATES_UNANSWERED.inc(len(charges))
            return self._charge_here(charges)
        return list(charged.wait_ms)
