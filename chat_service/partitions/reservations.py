"""Rooms that users are about to create or join, so that commands in flight count towards a quota. Pure.

Commands of one user may be in flight in several partitions. Each first reserves its room at the user's home, which
answers with the rooms that earlier commands have reserved, and then counts the records: an earlier command is either
in the records or among the reserved rooms, so the quota is exact.
"""

from collections import OrderedDict
from enum import StrEnum
from typing import NamedTuple

RESERVED_FOR_MS = 15_000  # longer than any command lives; a reservation that is not released ends by itself


class Quota(StrEnum):
    """A limit on the number of a user's rooms. The values are on the wire between replicas."""

    CREATED = "created"
    JOINED = "joined"


class Reservation(NamedTuple):
    """One room that a user is about to create or join."""

    quota: Quota
    user_id: str
    room_id: str


class Reservations:
    """The reservations of the users whose home this replica is.

    Bound: the reservations of the last 15 s, one for each user and room that a command names.
    """

    def __init__(self) -> None:
        self._rooms: dict[tuple[Quota, str], dict[str, None]] = {}
        self._made_at_ms: OrderedDict[Reservation, int] = OrderedDict()  # oldest first

    def __len__(self) -> int:
        return len(self._made_at_ms)

    def reserve(self, reservation: Reservation, now_ms: int) -> tuple[str, ...]:
        """Reserve a room, and return the other rooms that are reserved for the same user and quota."""
        self._end_old(now_ms)
        self._made_at_ms[reservation] = now_ms
        self._made_at_ms.move_to_end(reservation)
        rooms = self._rooms.setdefault(reservation[:2], {})
        others = tuple(room_id for room_id in rooms if room_id != reservation.room_id)
        rooms[reservation.room_id] = None
        return others

    def release(self, reservation: Reservation) -> None:
        """End a reservation: its room is in the records, or will not be added."""
        if self._made_at_ms.pop(reservation, None) is not None:
            rooms = self._rooms[reservation[:2]]
            del rooms[reservation.room_id]
            if not rooms:
                del self._rooms[reservation[:2]]

    def _end_old(self, now_ms: int) -> None:
        while self._made_at_ms:
            oldest, made_at_ms = next(iter(self._made_at_ms.items()))
            if made_at_ms > now_ms - RESERVED_FOR_MS:
                return
            self.release(oldest)
