"""The rates of a user that are counted across all replicas, and their windows. Pure; the clock is an argument."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from shared.rate_window import SlidingWindow

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


class Rate(StrEnum):
    """The kind of a counted act. The values are on the wire between replicas."""

    MESSAGES = "messages"
    CREATIONS = "creations"  # rooms
    JOINS = "joins"  # and leaves
    INVITATIONS = "invitations"  # users that another user makes members
    CHANGES = "changes"  # edits, deletions, reactions, pins
    STRANGERS = "strangers"  # direct messages to users without a common room


class Limit(NamedTuple):
    """At most `units` in any `window_ms`."""

    units: int
    window_ms: int


class Cost(NamedTuple):
    """The units of one rate that a command costs. Commands with the same `shared_id` share one charge."""

    rate: Rate
    units: int = 1
    shared_id: str = ""


Costs = tuple[Cost, ...]
MESSAGE: Costs = (Cost(Rate.MESSAGES),)


class Charge(NamedTuple):
    """One command to charge to its caller. Its id makes the charge idempotent."""

    user_id: str
    command_id: str


class Excess(NamedTuple):
    """The rate that a command exceeds, and the milliseconds until it would not."""

    rate: Rate
    wait_ms: int


class RateWindows:
    """One sliding window per rate. A charge of several rates is taken whole or not at all."""

    def __init__(self, limits: Mapping[Rate, Limit]) -> None:
        self._windows = {rate: SlidingWindow(*limit) for rate, limit in limits.items()}

    def charge(self, user_id: str, command_id: str, costs: Costs, now_ms: int) -> Excess | None:
        """Charge once, even if the same id arrives again. Return the excess with the longest wait, or None."""
        if len(costs) == 1:
            [(rate, units, shared_id)] = costs
            wait_ms = self._windows[rate].charge(user_id, shared_id or command_id, now_ms, units)
            return Excess(rate, wait_ms) if wait_ms else None
        waits = [
            Excess(rate, self._windows[rate].wait_ms(user_id, shared_id or command_id, now_ms, units))
            for rate, units, shared_id in costs
        ]
        longest = max(waits, key=lambda excess: excess.wait_ms, default=None)
        if longest is not None and longest.wait_ms:
            return longest
        for rate, units, shared_id in costs:
            self._windows[rate].charge(user_id, shared_id or command_id, now_ms, units)
        return None

    def refund(self, user_id: str, command_id: str, rates: Iterable[Rate]) -> None:
        """Undo a charge, if there is one."""
        for rate in rates:
            self._windows[rate].refund(user_id, command_id)
