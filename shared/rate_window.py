"""Exact sliding-window limit per user. Pure; the clock is an argument."""

from collections import OrderedDict
from dataclasses import dataclass, field

ChargeId = str | int


@dataclass(slots=True)
class _Charged:
    """The charges of one user in the last window: time and units by id, oldest first, and the sum of the units."""

    by_id: dict[ChargeId, tuple[int, int]] = field(default_factory=dict)
    units: int = 0


class SlidingWindow:
    """At most `limit` units of one user in any `window_ms`. Exact, and idempotent by the id of a charge.

    Bound: `limit` charges per user, and only users of the last window.
    """

    def __init__(self, limit: int, window_ms: int = 60_000) -> None:
        self._limit = limit
        self._window_ms = window_ms
        self._users: OrderedDict[str, _Charged] = OrderedDict()  # the longest inactive first

    def __len__(self) -> int:
        return len(self._users)

    def charge(self, user_id: str, charge_id: ChargeId, now_ms: int, units: int = 1) -> int:
        """Charge once, even if the same id arrives again. HOT.

        Return 0, or the milliseconds to wait when the window is full; then charge nothing.
        """
        self._forget_users(now_ms)
        charged = self._users.get(user_id)
        if charged is None:
            if units > self._limit:
                return self._window_ms
            charged = self._users[user_id] = _Charged()
        elif wait_ms := self._wait_ms(charged, charge_id, now_ms, units):
            return wait_ms
        if charge_id not in charged.by_id:
            charged.by_id[charge_id] = now_ms, units
            charged.units += units
            self._users.move_to_end(user_id)
        return 0

    def wait_ms(self, user_id: str, charge_id: ChargeId, now_ms: int, units: int = 1) -> int:
        """Return the wait that `charge` would return, without charging.

        More units than the limit never fit; their wait is the length of the window.
        """
        charged = self._users.get(user_id)
        if charged is None:
            return 0 if units <= self._limit else self._window_ms
        return self._wait_ms(charged, charge_id, now_ms, units)

    def _wait_ms(self, charged: _Charged, charge_id: ChargeId, now_ms: int, units: int) -> int:
        self._forget_charges(charged, now_ms)
        excess = charged.units + units - self._limit
        if excess <= 0 or charge_id in charged.by_id:
            return 0
        for at_ms, charged_units in charged.by_id.values():
            excess -= charged_units
            if excess <= 0:
                return at_ms + self._window_ms - now_ms
        return self._window_ms

    def refund(self, user_id: str, charge_id: ChargeId) -> None:
        """Undo a charge, if there is one."""
        charged = self._users.get(user_id)
        if charged is not None and (one := charged.by_id.pop(charge_id, None)) is not None:
            charged.units -= one[1]

    def _forget_charges(self, charged: _Charged, now_ms: int) -> None:
        begin_ms = now_ms - self._window_ms
        while charged.by_id:
            oldest = next(iter(charged.by_id))
            at_ms, units = charged.by_id[oldest]
            if at_ms > begin_ms:
                return
            del charged.by_id[oldest]
            charged.units -= units

    def _forget_users(self, now_ms: int) -> None:
        begin_ms = now_ms - self._window_ms
        while self._users:
            user_id = next(iter(self._users))
            by_id = self._users[user_id].by_id
            if by_id and by_id[next(reversed(by_id))][0] > begin_ms:
                return
            del self._users[user_id]
