"""The limits of users, ruled on each room command.

    costs (pure) ──> rates, charged at the caller's home ──> rooms, reserved at each user's home, and counted in the
                              │                              records
                  RATE_LIMITED, retryAfterMs                                  │
                                                                   FORBIDDEN, naming the bound

A ruling is made once per command, on the loaded state of its room. A decision raises its refusal only when it is about
to make an entry, so a command that repeats another one or changes nothing is answered whatever the limits say.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from chat_service.partitions.costs import BatchCosts, costs_of
from chat_service.partitions.rate_limit import Charge, RateLimiter
from chat_service.partitions.rates import HOUR_MS, MESSAGE, MINUTE_MS, Cost, Costs, Excess, Limit, Rate
from chat_service.partitions.reservations import Bound, Reservation
from chat_service.rooms.decision import RoomState
from chat_service.settings import ChatSettings
from chat_service.storage.room_store import RoomStore
from shared.commands.chat import AnyRoomCommand, SendDirect
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.mongo import chunks

PAIRS_AT_ONCE = 20  # pairs of users whose common rooms are looked up at the same time

_EXCEEDED = {
    Rate.MESSAGES: "too many messages",
    Rate.CREATIONS: "too many new rooms",
    Rate.JOINS: "too many joins and leaves",
    Rate.INVITATIONS: "too many invitations",
    Rate.STRANGERS: "too many direct messages to users without a common room",
}


class Ruling(NamedTuple):
    """What a command costs and reserves, and the refusal of the limit that it exceeds."""

    costs: Costs = ()
    reservations: tuple[Reservation, ...] = ()
    refusal: Refusal | None = None


_PLAIN = Ruling(MESSAGE)


class Bounds(NamedTuple):
    """The most rooms that a user may have created, and be a member of; direct rooms apart."""

    rooms_created: int
    rooms_joined: int


@dataclass(frozen=True, slots=True)
class _Reserved:
    """A reservation of command `index`, and the other rooms that are reserved for its user."""

    index: int
    reservation: Reservation
    pending: frozenset[str]


def limits_of(settings: ChatSettings) -> dict[Rate, Limit]:
    """Return the limit of every rate."""
    return {
        Rate.MESSAGES: Limit(settings.rate_limit_messages_per_minute, MINUTE_MS),
        Rate.CREATIONS: Limit(settings.rate_room_creations_per_hour, HOUR_MS),
        Rate.JOINS: Limit(settings.rate_joins_per_minute, MINUTE_MS),
        Rate.INVITATIONS: Limit(settings.rate_invitations_per_hour, HOUR_MS),
        Rate.STRANGERS: Limit(settings.rate_stranger_messages_per_hour, HOUR_MS),
    }


class Limits:
    """Rules on the commands of all partitions of a process."""

    def __init__(self, rates: RateLimiter, rooms: RoomStore, bounds: Bounds) -> None:
        self._rates = rates
        self._rooms = rooms
        self._bounds = bounds

    async def rule(self, commands: Sequence[AnyRoomCommand], states: Mapping[str, RoomState]) -> list[Ruling]:
        """Return the ruling on each command, after charging it. Raises Unavailable."""
        batch = costs_of(commands, states)
        if batch.first_direct:
            await self._add_strangers(batch, commands)
        refusals = await self._charge(batch, commands)
        reservations = {index: some for index, some in batch.reservations.items() if index not in refusals}
        if reservations:
            try:
                refusals |= await self._beyond_bounds(await self._reserve(reservations), commands)
            except Unavailable:
                for command, ruling in zip(commands, _rulings(batch, reservations, refusals), strict=True):
                    self.settle(command, ruling, changed=False)
                raise
        if not refusals and not reservations and all(costs is MESSAGE for costs in batch.costs):
            return [_PLAIN] * len(commands)  # HOT
        return _rulings(batch, reservations, refusals)

    def settle(self, command: AnyRoomCommand, ruling: Ruling, *, changed: bool) -> None:
        """End the reservations of a command that is answered, and undo its charge if it changed nothing."""
        if ruling.reservations:
            self._rates.release(ruling.reservations)
        if ruling.costs and not changed and not _is_rate_limited(ruling):
            self._rates.refund(Charge(command.caller.user_id, command.id), ruling.costs)

    async def _charge(self, batch: BatchCosts, commands: Sequence[AnyRoomCommand]) -> dict[int, Refusal]:
        """Charge every command that costs something; return the refusals, by index."""
        due = [index for index, costs in enumerate(batch.costs) if costs]
        if not due:
            return {}
        charges = [Charge(commands[index].caller.user_id, commands[index].id) for index in due]
        excesses = await self._rates.charge(charges, [batch.costs[index] for index in due])
        return {index: _rate_limited(excess) for index, excess in zip(due, excesses, strict=True) if excess}

    async def _reserve(self, reservations: Mapping[int, tuple[Reservation, ...]]) -> list[_Reserved]:
        """Reserve the rooms of every command."""
        wanted = [(index, one) for index, several in reservations.items() for one in several]
        pending = await self._rates.reserve([one for _, one in wanted])
        return [_Reserved(index, one, frozenset(others)) for (index, one), others in zip(wanted, pending, strict=True)]

    async def _add_strangers(self, batch: BatchCosts, commands: Sequence[AnyRoomCommand]) -> None:
        """Charge first direct messages to users with whom the caller shares no private or group room."""
        first: dict[tuple[str, str], str] = {}  # by room and caller: the later messages of a batch share its charge

        async def add(index: int) -> None:
            command = commands[index]
            assert isinstance(command, SendDirect)  # noqa: S101 - no other command starts a direct room
            shared_id = first.setdefault((command.room_id, command.caller.user_id), command.id)
            if not await self._rooms.have_common_room(command.caller.user_id, command.to_user_id):
                batch.costs[index] = (*batch.costs[index], Cost(Rate.STRANGERS, 1, shared_id))

        for some in chunks(batch.first_direct, PAIRS_AT_ONCE):
            await asyncio.gather(*map(add, some))

    async def _beyond_bounds(
        self, reserved: Sequence[_Reserved], commands: Sequence[AnyRoomCommand]
    ) -> dict[int, Refusal]:
        """Return the refusals, by index, of commands that would take a user beyond a bound."""
        joining = {one.reservation.user_id for one in reserved if one.reservation.bound is Bound.JOINED}
        memberships = await self._rooms.membership_counts(joining) if joining else {}
        refusals: dict[int, Refusal] = {}
        for one in reserved:
            user_id = one.reservation.user_id
            whose = "you" if user_id == commands[one.index].caller.user_id else user_id
            match one.reservation.bound:
                case Bound.CREATED:
                    created = await self._rooms.ids_created_by(user_id, self._bounds.rooms_created)
                    if len((created | one.pending) - {one.reservation.room_id}) >= self._bounds.rooms_created:
                        reason = f"{whose} created {self._bounds.rooms_created} rooms"
                        refusals.setdefault(one.index, _forbidden("ROOMS_CREATED_MAX", reason))
                case Bound.JOINED:
                    count = memberships.get(user_id, 0) + len(one.pending)
                    if count >= self._bounds.rooms_joined:
                        count = await self._rooms.count_joined(user_id, one.pending)
                    if count >= self._bounds.rooms_joined:
                        reason = f"{whose} joined {self._bounds.rooms_joined} rooms"
                        refusals.setdefault(one.index, _forbidden("ROOMS_JOINED_MAX", reason))
                case other:
                    assert_never(other)
        return refusals


def _rulings(
    batch: BatchCosts, reservations: Mapping[int, tuple[Reservation, ...]], refusals: Mapping[int, Refusal]
) -> list[Ruling]:
    return [Ruling(costs, reservations.get(index, ()), refusals.get(index)) for index, costs in enumerate(batch.costs)]


def _is_rate_limited(ruling: Ruling) -> bool:
    return ruling.refusal is not None and ruling.refusal.code is ErrorCode.RATE_LIMITED


def _forbidden(bound: str, reason: str) -> Refusal:
    return Refusal(ErrorCode.FORBIDDEN, f"{bound}: {reason}, the most allowed")


def _rate_limited(excess: Excess) -> Refusal:
    return Refusal(ErrorCode.RATE_LIMITED, _EXCEEDED[excess.rate], retry_after_ms=excess.wait_ms)
