"""Heads of rooms that spoke, announced a second later. Pure.

The loss of a delivery shows as a gap, once the next one arrives; the loss of the last one would show never. So each
room that spoke is followed by one conflated line with its head, on the channel of the room or of its two direct users.

Bound: the rooms of the last second.
"""

from collections.abc import Iterable, Mapping

from chat_service.decision import RoomState
from chat_service.log import LogEntry
from shared.bus.delivery import Delivery, DeliveryClass, room_channel, user_channel

DELAY_MS = 1_000


class Heads:
    """The newest rev of each room that spoke within the last second."""

    def __init__(self) -> None:
        self._directs: dict[str, tuple[str, str]] = {}
        self._newest: dict[str, tuple[int, int]] = {}  # rev and time
        self._due_at_ms: dict[str, int] = {}  # first to become due first

    def note(self, entries: Iterable[LogEntry], states: Mapping[str, RoomState], now_ms: int) -> None:
        """Take the entries that were appended."""
        for entry in entries:
            self._newest[entry.room_id] = entry.rev, entry.at_ms
            self._due_at_ms.setdefault(entry.room_id, now_ms + DELAY_MS)
            room = states[entry.room_id].room
            if room is not None and room.direct is not None:
                self._directs[entry.room_id] = room.direct

    def due(self, now_ms: int) -> list[Delivery]:
        """Return the lines to send now."""
        lines: list[Delivery] = []
        for room_id, due_at_ms in list(self._due_at_ms.items()):
            if due_at_ms > now_ms:
                break
            del self._due_at_ms[room_id]
            rev, at_ms = self._newest.pop(room_id)
            lines += head_lines(room_id, rev, at_ms, self._directs.pop(room_id, None))
        return lines


def head_lines(room_id: str, rev: int, at_ms: int, direct: tuple[str, str] | None) -> list[Delivery]:
    """Return the lines that tell gateways up to which rev a room has entries.

    That of a direct room has the time of the newest entry: a socket that does not know the room and was open by then
    has missed it.
    """
    if direct is None:
        return [Delivery(room_channel(room_id), DeliveryClass.HEAD, rev, "", b"")]
    time = b"%d" % at_ms
    return [Delivery(user_channel(user_id), DeliveryClass.HEAD, rev, room_id, time) for user_id in direct]
