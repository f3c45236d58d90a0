"""The limits of users, checked for each room command.

    costs (pure) ──> rates, charged at the caller's home ──> strangers ──> rooms, reserved at each user's home, and
                              │                                  │         counted in the records
                  RATE_LIMITED, retryAfterMs <───────────────────┘                  │
                                                                       FORBIDDEN, naming the quota

Only users within their other rates cause a look-up of common rooms, and a batch makes a bounded number of them, because
the rooms of its partition wait for it.

Each command is checked once, on the loaded state of its room. The decision raises the verdict's refusal only when it is
about to make an entry, so a command that repeats another one or changes nothing is answered regardless of the limits.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from chat_service.partitions.costs import BatchCosts, costs_of, pairs_to_look_up
from chat_service.partitions.rate_limit import RateLimiter
from chat_service.partitions.rates import HOUR_MS, MESSAGE, MINUTE_MS, Charge, Cost, Costs, Excess, Limit, Rate
from chat_service.partitions.reservations import Quota, Reservation
from chat_service.partitions.settlement import ChargeOutcome, Settled, refunds_of
from chat_service.rooms.decision import RoomState
from chat_service.settings import ChatSettings
from chat_service.storage.room_store import RoomStore
from shared.commands.chat import AnyRoomCommand, SendDirect
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.mongo import chunks

LOOK_UPS_AT_ONCE = 20  # pairs of users whose common rooms are looked up at the same time
RETRY_AFTER_MS = 1_000

_EXCEEDED = {
    Rate.MESSAGES: "too many messages",
    Rate.CREATIONS: "too many new rooms",
    Rate.JOINS: "too many joins and leaves",
    Rate.INVITATIONS: "too many invitations",
    Rate.CHANGES: "too many edits, deletions, reactions and pins",
    Rate.STRANGERS: "too many direct messages to users without a common room",
}


class Verdict(NamedTuple):
    """The charges and reservations of a command, and the refusal of the limit that it exceeds."""

    costs: Costs = ()
    reservations: tuple[Reservation, ...] = ()
    refusal: Refusal | None = None


_PLAIN = Verdict(MESSAGE)
Answered = tuple[AnyRoomCommand, Verdict, ChargeOutcome]


class Quotas(NamedTuple):
    """The most rooms that a user may have created, and be a member of, excluding direct rooms."""

    rooms_created: int
    rooms_joined: int


@dataclass(frozen=True, slots=True)
class _Reserved:
    """A reservation of command `index`, and the other reserved rooms of its user."""

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
        Rate.CHANGES: Limit(settings.rate_changes_per_minute, MINUTE_MS),
        Rate.STRANGERS: Limit(settings.rate_stranger_messages_per_hour, HOUR_MS),
    }


class Limits:
    """Checks the commands of all partitions of a process."""

    def __init__(self, rates: RateLimiter, rooms: RoomStore, limits: Mapping[Rate, Limit], quotas: Quotas) -> None:
        self._rates = rates
        self._rooms = rooms
        self._limits = limits
        self._quotas = quotas

    async def check(self, commands: Sequence[AnyRoomCommand], states: Mapping[str, RoomState]) -> list[Verdict]:
        """Charge each command and return its verdict. Raises Unavailable."""
        batch = costs_of(commands, states)
        refusals = await self._charge(batch.costs, commands)
        reservations = {index: some for index, some in batch.reservations.items() if index not in refusals}
        first_direct = [index for index in batch.first_direct if index not in refusals]
        try:
            if first_direct:
                refusals |= await self._charge_strangers(first_direct, batch, commands)
            if reservations:
                refusals |= await self._beyond_quotas(await self._reserve(reservations), commands)
        except Unavailable:
            verdicts = _verdicts(batch, reservations, refusals)
            self.settle([(one, verdict, ChargeOutcome.FREE) for one, verdict in zip(commands, verdicts, strict=True)])
            raise
        if not refusals and not reservations and all(costs is MESSAGE for costs in batch.costs):
            return [_PLAIN] * len(commands)  # HOT
        return _verdicts(batch, reservations, refusals)

    def settle(self, answered: Sequence[Answered]) -> None:
        """End the reservations of a batch that is answered, and refund the charges of effects that did not happen."""
        settled: list[Settled] = []
        for command, verdict, outcome in answered:
            if verdict is _PLAIN and outcome is ChargeOutcome.CHANGED:
                continue  # HOT: almost every command
            if verdict.reservations and outcome is not ChargeOutcome.UNKNOWN:
                self._rates.release(verdict.reservations)
            settled.append(Settled(Charge(command.caller.user_id, command.id), verdict.costs, outcome))
        for charge, rates in refunds_of(settled).items():
            self._rates.refund(charge, rates)

    async def _charge(self, costs: list[Costs], commands: Sequence[AnyRoomCommand]) -> dict[int, Refusal]:
        """Charge every command that has a cost; return the refusals, by index.

        `costs[i] = ()` for a refused command: it was charged nothing, so settlement must refund nothing.
        """
        refusals: dict[int, Refusal] = {}
        for index, some in enumerate(costs):
            if some is not MESSAGE and (beyond := self._beyond_any_window(some)) is not None:
                refusals[index] = beyond
                costs[index] = ()
        due = [index for index, some in enumerate(costs) if some]
        if due:
            charges = [Charge(commands[index].caller.user_id, commands[index].id) for index in due]
            for index, excess in zip(due, await self._rates.charge(charges, [costs[i] for i in due]), strict=True):
                if excess is not None:
                    refusals[index] = _rate_limited(excess)
                    costs[index] = ()
        return refusals

    def _beyond_any_window(self, costs: Costs) -> Refusal | None:
        """Return the refusal of more invitations than an hour ever allows.

        Its `retry_after_ms` is a whole hour, so that clients do not repeat the command: it would be refused again, and
        must be made smaller.
        """
        most, window_ms = self._limits[Rate.INVITATIONS]
        for rate, units, _ in costs:
            if rate is Rate.INVITATIONS and units > most:
                reason = f"RATE_INVITATIONS_PER_HOUR: {units} invitations at once, and an hour allows {most}"
                return Refusal(ErrorCode.RATE_LIMITED, reason, retry_after_ms=window_ms)
        return None

    async def _reserve(self, reservations: Mapping[int, tuple[Reservation, ...]]) -> list[_Reserved]:
        """Reserve the rooms of every command."""
        wanted = [(index, one) for index, several in reservations.items() for one in several]
        pending = await self._rates.reserve([one for _, one in wanted])
        return [_Reserved(index, one, frozenset(others)) for (index, one), others in zip(wanted, pending, strict=True)]

    async def _charge_strangers(
        self, first_direct: Sequence[int], batch: BatchCosts, commands: Sequence[AnyRoomCommand]
    ) -> dict[int, Refusal]:
        """Charge first direct messages to users with whom the caller shares no private or group room.

        Return the refusals by index: of messages beyond the rate, and of messages beyond the bound on look-ups. A
        message beyond the rate keeps its charge as a message, so the message rate bounds the look-ups that a user
        causes. Settlement would refund it, so its costs are set to `()`. A message beyond the bound is refunded.
        """
        senders = [one for index in first_direct if isinstance(one := commands[index], SendDirect)]
        looked_up = pairs_to_look_up(senders)
        acquainted = await self._acquainted(looked_up)
        first: dict[tuple[str, str], str] = {}  # by room and caller; later messages of the batch share its charge
        extra: list[Costs] = [()] * len(commands)
        refusals: dict[int, Refusal] = {}
        for index, command in zip(first_direct, senders, strict=True):
            if command.room_id not in looked_up:
                refusals[index] = _too_many_at_once()
            elif command.room_id not in acquainted:
                shared_id = first.setdefault((command.room_id, command.caller.user_id), command.id)
                extra[index] = (Cost(Rate.STRANGERS, 1, shared_id),)
        beyond = await self._charge(extra, commands)
        for index in first_direct:
            batch.costs[index] = () if index in beyond else (*batch.costs[index], *extra[index])
        return refusals | beyond

    async def _acquainted(self, pairs: Mapping[str, SendDirect]) -> set[str]:
        """Return the direct rooms whose users share a private or group room."""

        async def look_up(message: SendDirect) -> bool:
            return await self._rooms.have_common_room(message.caller.user_id, message.to_user_id)

        acquainted: set[str] = set()
        for some in chunks(list(pairs.items()), LOOK_UPS_AT_ONCE):
            answers = await asyncio.gather(*(look_up(message) for _, message in some))
            acquainted |= {room_id for (room_id, _), is_so in zip(some, answers, strict=True) if is_so}
        return acquainted

    async def _beyond_quotas(
        self, reserved: Sequence[_Reserved], commands: Sequence[AnyRoomCommand]
    ) -> dict[int, Refusal]:
        """Return the refusals, by index, of commands that would take a user beyond a quota."""
        joining = {one.reservation.user_id for one in reserved if one.reservation.quota is Quota.JOINED}
        memberships = await self._rooms.membership_counts(joining) if joining else {}
        refusals: dict[int, Refusal] = {}
        for one in reserved:
            user_id = one.reservation.user_id
            whose = "you" if user_id == commands[one.index].caller.user_id else user_id
            match one.reservation.quota:
                case Quota.CREATED:
                    created = await self._rooms.ids_created_by(user_id, self._quotas.rooms_created)
                    if len((created | one.pending) - {one.reservation.room_id}) >= self._quotas.rooms_created:
                        reason = f"{whose} created {self._quotas.rooms_created} rooms"
                        refusals.setdefault(one.index, _forbidden("ROOMS_CREATED_MAX", reason))
                case Quota.JOINED:
                    count = memberships.get(user_id, 0) + len(one.pending)
                    if count >= self._quotas.rooms_joined:
                        count = await self._rooms.count_joined(user_id, one.pending)
                    if count >= self._quotas.rooms_joined:
                        reason = f"{whose} joined {self._quotas.rooms_joined} rooms"
                        refusals.setdefault(one.index, _forbidden("ROOMS_JOINED_MAX", reason))
                case other:
                    assert_never(other)
        return refusals


def _verdicts(
    batch: BatchCosts, reservations: Mapping[int, tuple[Reservation, ...]], refusals: Mapping[int, Refusal]
) -> list[Verdict]:
    return [Verdict(costs, reservations.get(index, ()), refusals.get(index)) for index, costs in enumerate(batch.costs)]


def _forbidden(setting: str, reason: str) -> Refusal:
    return Refusal(ErrorCode.FORBIDDEN, f"{setting}: {reason}, the most allowed")


def _too_many_at_once() -> Refusal:
    reason = "too many first direct messages at once"
    return Refusal(ErrorCode.UNAVAILABLE, reason, retry_after_ms=RETRY_AFTER_MS)


def _rate_limited(excess: Excess) -> Refusal:
    return Refusal(ErrorCode.RATE_LIMITED, _EXCEEDED[excess.rate], retry_after_ms=excess.wait_ms)
