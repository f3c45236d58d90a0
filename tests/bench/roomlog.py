"""The bytes that every socket of a room must receive, stored once, so that checking a socket is one comparison. Pure.

The first socket that receives something new appends it to the log, where it is parsed once. Every other socket must
receive the same bytes: a lost, repeated or reordered message would differ. A read costs a memcmp and a bisection
instead of a parse per message.
"""

from bisect import bisect_right

from tests.bench.marks import read_mark
from tests.bench.tally import BIN_US, MeasureWindow, Order, Tally
from tests.bench.wire import frame_end


class RoomLog:
    """The bytes of a room since its listeners joined. Bound: the messages of one run."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ends: list[int] = []  # end of the frame of message i
        self.sent_us: list[int] = []
        self.order = Order()
        self.arrivals: dict[tuple[int, int, int], int] = {}
        self._parsed = 0

    def extend(self, data: bytes, position: int) -> None:
        """Append the part of `data` that a socket at `position` received beyond the log."""
        self.data += data[len(self.data) - position :]
        while True:
            payload, end = frame_end(self.data, self._parsed)
            if not end or end > len(self.data):
                return
            mark = read_mark(bytes(self.data[payload:end]))
            if mark is not None:
                self.order.saw(mark.seq)
                self.ends.append(end)
                self.sent_us.append(mark.sent_us)
            self._parsed = end

    def tally(self, window: MeasureWindow, into: Tally) -> None:
        """Count every delivery from the arrivals (first message, message after the last, time in 0.1 ms)."""
        bins = into.latencies.bins
        for (first, behind, arrived), sockets in self.arrivals.items():
            arrived_us = arrived * BIN_US
            into.received += (behind - first) * sockets
            if window.measure_us <= arrived_us < window.until_us:
                into.delivered += (behind - first) * sockets
            for sent_us in self.sent_us[first:behind]:
                if window.measure_us <= sent_us < window.until_us:
                    bins[max(arrived_us - sent_us, 0) // BIN_US] += sockets


class LogPosition:
    """The position of one socket in a log."""

    __slots__ = ("at", "index", "log", "unlike")

    def __init__(self, log: RoomLog) -> None:
        self.log = log
        self.at = 0
        self.index = 0
        self.unlike = False

    def feed(self, data: bytes, now_us: int) -> bool:
        """Process what was read; return False from the first differing byte on. HOT: once per read."""
        log = self.log
        end = self.at + len(data)
        if end > len(log.data) and log.data.startswith(data[: len(log.data) - self.at], self.at):
            log.extend(data, self.at)
        if not log.data.startswith(data, self.at):
            self.unlike = True
            return False
        self.at = end
        index = bisect_right(log.ends, end, self.index)
        if index != self.index:
            key = (self.index, index, now_us // BIN_US)
            log.arrivals[key] = log.arrivals.get(key, 0) + 1
            self.index = index
        return True
