"""Rate limits over all replicas: one replica, the user's home, counts all commands of a user.

A replica counts its own users in memory and queries the homes of other users once per batch; each home also keeps its
users' reservations. If a home does not answer in time, the command is counted here instead: availability first, and
the limits still apply within this replica.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import zip_longest
from typing import TypedDict, TypeVar

import msgspec

from chat_service import metrics
from chat_service.partitions.ownership import ReplicaView
from chat_service.partitions.rates import MESSAGE, Charge, Costs, Excess, Rate, RateWindows
from chat_service.partitions.rendezvous import preferred_node
from chat_service.partitions.reservations import Reservation, Reservations
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

T = TypeVar("T")
ASK_TIMEOUT_MS = 500
QUEUE_PREFIX = "rates"
SYSTEM = Caller(user_id="system:chat")


class ChargeCommands(ServiceRequest, frozen=True, kw_only=True, tag="rate.take"):
    """Charge commands to their callers. Reply: `CommandsCharged`, to the queue `reply_to`.

    Without `costs`, each command costs one message; otherwise `costs[i]` belongs to charge i.
    """

    charges: tuple[Charge, ...]
    costs: tuple[Costs, ...] = ()
    reply_to: str


class RefundCommand(ServiceRequest, frozen=True, kw_only=True, tag="rate.give_back"):
    """Undo the charge of a command, or its part of some rates. No reply."""

    charge: Charge
    rates: tuple[Rate, ...] = (Rate.MESSAGES,)


class ReserveRooms(ServiceRequest, frozen=True, kw_only=True, tag="rate.reserve"):
    """Reserve rooms for their users. Reply: `RoomsReserved`, to the queue `reply_to`."""

    reservations: tuple[Reservation, ...]
    reply_to: str


class ReleaseRooms(ServiceRequest, frozen=True, kw_only=True, tag="rate.release"):
    """End reservations. No reply."""

    reservations: tuple[Reservation, ...]


class CommandsCharged(WireStruct, frozen=True, kw_only=True):
    """The milliseconds to wait for each charge, 0 within the limits, and the rate that it exceeds."""

    wait_ms: tuple[int, ...]
    rates: tuple[Rate | None, ...] = ()


class RoomsReserved(WireStruct, frozen=True, kw_only=True):
    """The other reserved rooms of each reservation's user."""

    pending: tuple[tuple[str, ...], ...]


class _Head(TypedDict):
    id: str
    deadline_ms: int
    caller: Caller


_AnyRateCommand = ChargeCommands | RefundCommand | ReserveRooms | ReleaseRooms
_decoder: "msgspec.json.Decoder[_AnyRateCommand]" = msgspec.json.Decoder(_AnyRateCommand)


class RateLimiter:
    """Counts commands and keeps reservations by user, for rooms of any partition."""

    def __init__(
        self,
        windows: RateWindows,
        bus: Bus,
        replicas: ReplicaView,
        clock_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        self._windows = windows
        self._reservations = Reservations()
        self._bus = bus
        self._replicas = replicas
        self._clock_ms = clock_ms
        self._monotonic_ms = monotonic_ms
        bus.private_queue(QUEUE_PREFIX, self._on_body)

    async def charge(self, charges: Sequence[Charge], costs: Sequence[Costs]) -> list[Excess | None]:
        """Charge commands in order, `costs[i]` for charge i. Return the excess of each, None within the limits."""

        async def at(home: str | None, indexes: list[int]) -> Sequence[Excess | None]:
            return await self._charge_at(home, [charges[i] for i in indexes], [costs[i] for i in indexes])

        return await self._at_homes([charge.user_id for charge in charges], at)

    async def reserve(self, reservations: Sequence[Reservation]) -> list[tuple[str, ...]]:
        """Reserve rooms, in order; return the other reserved rooms of each user."""

        async def at(home: str | None, indexes: list[int]) -> Sequence[tuple[str, ...]]:
            return await self._reserve_at(home, [reservations[i] for i in indexes])

        return await self._at_homes([reservation.user_id for reservation in reservations], at)

    def refund(self, charge: Charge, rates: Sequence[Rate]) -> None:
        """Undo the charge of a command, or its part of these rates."""
        queue = self._queue_of(self._home_of(charge.user_id))
        if queue is None:
            self._windows.refund(*charge, rates)
            return
        self._bus.send("", queue, to_json(RefundCommand(**_head(), charge=charge, rates=tuple(rates))))

    def release(self, reservations: Sequence[Reservation]) -> None:
        """End the reservations of a completed command."""
        for home, indexes in self._by_home(reservation.user_id for reservation in reservations).items():
            own = tuple(reservations[index] for index in indexes)
            queue = self._queue_of(home)
            if queue is None:
                self._release_here(own)
            else:
                self._bus.send("", queue, to_json(ReleaseRooms(**_head(), reservations=own)))

    def _on_body(self, body: bytes) -> None:
        """Act for another replica. The handler of this replica's private queue."""
        try:
            command = decode(body, _decoder)
        except (Malformed, Refusal) as error:
            log.error("bad_rate_command", reason=str(error))
            return
        match command:
            case ChargeCommands():
                costs = command.costs or [MESSAGE] * len(command.charges)
                excesses = self._charge_here(command.charges, costs)
                charged = CommandsCharged(
                    wait_ms=tuple(0 if excess is None else excess.wait_ms for excess in excesses),
                    rates=tuple(None if excess is None else excess.rate for excess in excesses),
                )
                self._bus.send("", command.reply_to, reply_line(command.id, charged))
            case RefundCommand():
                self._windows.refund(*command.charge, command.rates)
            case ReserveRooms():
                reserved = RoomsReserved(pending=tuple(self._reserve_here(command.reservations)))
                self._bus.send("", command.reply_to, reply_line(command.id, reserved))
            case ReleaseRooms():
                self._release_here(command.reservations)

    # Homes ----------------------------------------------------------------------------------------------------------

    async def _at_homes(
        self, user_ids: Sequence[str], at: Callable[[str | None, list[int]], Awaitable[Sequence[T]]]
    ) -> list[T]:
        """Query each home once, for the indexes of its users, and return the answers in the order of `user_ids`."""
        by_home = self._by_home(user_ids)
        if len(by_home) == 1:
            [(home, indexes)] = by_home.items()
            return list(await at(home, indexes))
        answers = await asyncio.gather(*(at(home, indexes) for home, indexes in by_home.items()))
        found = {
            index: one
            for indexes, answer in zip(by_home.values(), answers, strict=True)
            for index, one in zip(indexes, answer, strict=True)
        }
        return [found[index] for index in range(len(user_ids))]

    def _by_home(self, user_ids: Iterable[str]) -> dict[str | None, list[int]]:
        """Return the indexes of users by their home."""
        by_home: dict[str | None, list[int]] = {}
        for index, user_id in enumerate(user_ids):
            by_home.setdefault(self._home_of(user_id), []).append(index)
        return by_home

    def _home_of(self, user_id: str) -> str | None:
        """Return the home of a user; None means this replica."""
        home = preferred_node(user_id, self._replicas.live_nodes(self._monotonic_ms()))
        return None if home == self._replicas.node else home

    def _queue_of(self, home: str | None) -> str | None:
        """Return the queue of another replica's rate limiter; None for this replica and for one that is gone."""
        queue = None if home is None else self._replicas.queue_of(home)
        return None if queue is None else sibling_queue(queue, QUEUE_PREFIX)

    async def _charge_at(
        self, home: str | None, charges: Sequence[Charge], costs: Sequence[Costs]
    ) -> Sequence[Excess | None]:
        queue = self._queue_of(home)
        if queue is None:
            return self._charge_here(charges, costs)
        is_plain = all(cost == MESSAGE for cost in costs)
        command = ChargeCommands(
            **_head(),
            charges=tuple(charges),
            costs=() if is_plain else tuple(costs),
            reply_to=self._bus.reply_queue,
        )
        try:
            charged = await self._bus.request_transient(queue, command, CommandsCharged)
        except Unavailable as error:
            self._note_unanswered(error, len(charges))
            return self._charge_here(charges, costs)
        return _excesses_of(charged)

    async def _reserve_at(self, home: str | None, reservations: Sequence[Reservation]) -> Sequence[tuple[str, ...]]:
        queue = self._queue_of(home)
        if queue is None:
            return self._reserve_here(reservations)
        command = ReserveRooms(**_head(), reservations=tuple(reservations), reply_to=self._bus.reply_queue)
        try:
            return (await self._bus.request_transient(queue, command, RoomsReserved)).pending
        except Unavailable as error:
            self._note_unanswered(error, len(reservations))
            return self._reserve_here(reservations)

    def _note_unanswered(self, error: Unavailable, count: int) -> None:
        log.warning("rate_counted_here", reason=str(error))
        metrics.RATES_UNANSWERED.inc(count)

    # Users whose home is this replica -------------------------------------------------------------------------------

    def _charge_here(self, charges: Sequence[Charge], costs: Sequence[Costs]) -> list[Excess | None]:
        at_ms = self._clock_ms()
        return [self._windows.charge(*charge, cost, at_ms) for charge, cost in zip(charges, costs, strict=True)]

    def _reserve_here(self, reservations: Sequence[Reservation]) -> list[tuple[str, ...]]:
        at_ms = self._clock_ms()
        return [self._reservations.reserve(reservation, at_ms) for reservation in reservations]

    def _release_here(self, reservations: Sequence[Reservation]) -> None:
        for reservation in reservations:
            self._reservations.release(reservation)


def _head() -> _Head:
    """Return the fields that start every command to a home."""
    return {"id": new_id(Prefix.COMMAND), "deadline_ms": now_ms() + ASK_TIMEOUT_MS, "caller": SYSTEM}


def _excesses_of(charged: CommandsCharged) -> list[Excess | None]:
    """Return the excess of each charge; a replica that names no rate counts only messages."""
    return [
        Excess(rate or Rate.MESSAGES, wait_ms) if wait_ms else None
        for wait_ms, rate in zip_longest(charged.wait_ms, charged.rates)
    ]
