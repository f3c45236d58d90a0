"""Checking a room's messages where sockets need not get the same bytes (nats-server frames them as they come). Pure.

A read is counted, not parsed: as many seqs as came must lie between the last one before and the last one now. Only when
they do not is it looked at one by one. A repeat and a loss within one read could cancel out here; `roomlog` sees those.
"""

import re

from tests.bench.marks import COUNTED
from tests.bench.tally import BIN_US, MeasureWindow, Order, Tally

_MARKED = re.compile(rb'"seq":(\d+),"message":"~(\d{16})~')
_MARK_MAX = 80  # a mark is shorter, and a message goes on longer behind it


class CountedRoom:
    """When each message was sent, and who got which when."""

    def __init__(self) -> None:
        self.sent_us: dict[int, int] = {}
        self.arrivals: dict[tuple[int, int, int], int] = {}

    def tally(self, window: MeasureWindow, into: Tally) -> None:
        """Count every delivery from the arrivals (last seq before, last seq now, 0.1 ms of the clock)."""
        bins = into.latencies.bins
        for (before, last, arrived), sockets in self.arrivals.items():
            arrived_us = arrived * BIN_US
            into.received += (last - before) * sockets
            if window.measure_us <= arrived_us < window.until_us:
                into.delivered += (last - before) * sockets
            for seq in range(before + 1, last + 1):
                sent_us = self.sent_us.get(seq, 0)
                if window.measure_us <= sent_us < window.until_us:
                    bins[max(arrived_us - sent_us, 0) // BIN_US] += sockets


class CountedPlace:
    """How far one socket has got."""

    __slots__ = ("_rest", "order", "room")

    def __init__(self, room: CountedRoom, first: int = 0) -> None:
        self.room = room
        self.order = Order(first)
        self._rest = b""

    def feed(self, data: bytes, now_us: int) -> None:
        """Take what was read. HOT: once a read."""
        data = self._rest + data
        cut = max(len(data) - _MARK_MAX, 0)
        self._rest = data[cut:]
        count = data.count(COUNTED, 0, cut + len(COUNTED) - 1)
        if not count:
            return
        match = _MARKED.match(data, data.rfind(COUNTED, 0, cut + len(COUNTED) - 1))
        if match is None:
            return
        room, order = self.room, self.order
        before, last = order.last, int(match[1])
        if last not in room.sent_us:
            room.sent_us.update((int(one[1]), int(one[2])) for one in _MARKED.finditer(data))
        if last == before + count:
            order.last = last
            order.received += count
        else:
            for one in _MARKED.finditer(data, 0, match.end()):
                order.saw(int(one[1]))
        if order.last > before:
            key = (before, order.last, now_us // BIN_US)
            room.arrivals[key] = room.arrivals.get(key, 0) + 1
