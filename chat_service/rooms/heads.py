"""Heads of active rooms, announced a second after the first unannounced entry. Pure.

The loss of a delivery shows as a gap once the next one arrives, so the loss of the last one would go unnoticed.
Therefore a conflated delivery with the room's head follows, on the channel of the room or of its two direct users.
Lines on the channels of invited or removed users have no later line to reveal a loss, so they are sent twice.

Bound: the rooms of the last second, and the users whom their entries invited or removed.
"""

from collections.abc import Iterable, Mapping

from chat_service.rooms.decision import RoomState
from chat_service.rooms.entry_deliveries import head_deliveries, own_deliveries_of
from chat_service.rooms.log import LogEntry
from shared.bus.delivery import Delivery

DELAY_MS = 1_000


class Heads:
    """The heads that are not announced yet: the newest rev of each room, due a second after its first new entry."""

    def __init__(self) -> None:
        self._directs: dict[str, tuple[str, str]] = {}
        self._own: dict[str, dict[str, Delivery]] = {}  # by room and channel: the newest delivery to a user
        self._newest: dict[str, tuple[int, int]] = {}  # rev and time
        self._due_at_ms: dict[str, int] = {}  # the first to become due comes first

    def note(self, entries: Iterable[LogEntry], states: Mapping[str, RoomState], now_ms: int) -> None:
        """Note the appended entries."""
        for entry in entries:
            self._newest[entry.room_id] = entry.rev, entry.at_ms
            self._due_at_ms.setdefault(entry.room_id, now_ms + DELAY_MS)
            room = states[entry.room_id].room
            if room is not None and room.direct is not None:
                self._directs[entry.room_id] = room.direct
            elif entry.members and (own := own_deliveries_of(entry, sent_again=True)):
                self._own.setdefault(entry.room_id, {}).update((delivery.channel, delivery) for delivery in own)

    def due(self, now_ms: int) -> list[Delivery]:
        """Return the deliveries to send now."""
        deliveries: list[Delivery] = []
        for room_id, due_at_ms in list(self._due_at_ms.items()):
            if due_at_ms > now_ms:
                break
            del self._due_at_ms[room_id]
            rev, at_ms = self._newest.pop(room_id)
            deliveries += self._own.pop(room_id, {}).values()
            deliveries += head_deliveries(room_id, rev, at_ms, self._directs.pop(room_id, None))
        return deliveries
