"""Message checks for sockets that may receive different bytes (nats-server chooses its own framing). Pure.

A read is counted, not parsed: it must contain as many seqs as lie between the last one before and the last one now.
Only on a mismatch is it parsed. A repeat and a loss within one read could cancel out here; `roomlog` would notice them.
"""

import re

from tests.bench.marks import COUNTED
from tests.bench.tally import BIN_US, MeasureWindow, Order, Tally

_MARKED = re.compile(rb'"seq":(\d+),"message":"~(\d{16})~')
_MARK_MAX = 80  # longer than a mark, shorter than the rest of a message


class CountedRoom:
    """The send time of each message and all arrivals."""

    def __init__(self) -> None:
        self.sent_us: dict[int, int] = {}
        self.arrivals: dict[tuple[int, int, int], int] = {}

    def tally(self, window: MeasureWindow, into: Tally) -> None:
        """Count every delivery from the arrivals (previous seq, current seq, time in 0.1 ms)."""
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
    """The position of one socket."""

    __slots__ = ("_rest", "order", "room")

    def __init__(self, room: CountedRoom, first: int = 0) -> None:
        self.room = room
        self.order = Order(first)
        self._rest = b""

    def feed(self, data: bytes, now_us: int) -> None:
        """Process what was read. HOT: once per read."""
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
