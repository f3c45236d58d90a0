"""Counts: latencies in bins of 0.1 ms, deliveries, errors. Pure; tallies of processes add up."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

BIN_US = 100
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
SUMMED: tuple[str, ...] = ("delivered", "received", "sent", "acked", "acked_in_time", "refused")
SUMMED += ("lost", "repeated", "disordered", "unlike")


class Mark(NamedTuple):
    """A message's position in its room and its send time."""

    seq: int
    sent_us: int


class MeasureWindow(NamedTuple):
    """Load runs from `begin_us` to `until_us`; only what is sent and received from `measure_us` on counts."""

    begin_us: int
    measure_us: int
    until_us: int

    @property
    def measured_s(self) -> float:
        """Return the measured duration."""
        return (self.until_us - self.measure_us) / 1e6


class Latencies:
    """Latencies, each rounded down to 0.1 ms."""

    def __init__(self) -> None:
        self.bins: Counter[int] = Counter()

    def add(self, latency_us: int, times: int = 1) -> None:
        """Count a latency."""
        self.bins[latency_us // BIN_US] += times

    def merge(self, other: "Latencies") -> None:
        """Add another process's latencies."""
        self.bins.update(other.bins)

    @property
    def count(self) -> int:
        """Return the number of latencies."""
        return self.bins.total()

    def at(self, percentile: float) -> float | None:
        """Return the given percentile in milliseconds, or None without any latency."""
        wanted = self.count * percentile / 100
        seen = 0
        for number in sorted(self.bins):
            seen += self.bins[number]
            if seen >= wanted:
                return number * BIN_US / 1000
        return None

    def figures(self) -> dict[str, float | None]:
        """Return the percentiles and the maximum in milliseconds."""
        named = {f"p{percentile:g}": self.at(percentile) for percentile in PERCENTILES}
        return named | {"max": max(self.bins, default=0) * BIN_US / 1000}


@dataclass
class Tally:
    """The counts of one process."""

    latencies: Latencies = field(default_factory=Latencies)
    answers: Latencies = field(default_factory=Latencies)  # times of acks or of connections
    refusals: Latencies = field(default_factory=Latencies)
    delivered: int = 0  # in the measured time
    received: int = 0
    sent: int = 0
    acked: int = 0
    acked_in_time: int = 0  # acks that arrived in the measured time
    refused: int = 0
    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    unlike: int = 0  # sockets whose bytes differed from the others'
    closed: Counter[str] = field(default_factory=Counter)
    last_seq: dict[str, int] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)

    def merge(self, other: "Tally") -> None:
        """Add another process's counts."""
        self.latencies.merge(other.latencies)
        self.answers.merge(other.answers)
        self.refusals.merge(other.refusals)
        for name in (
            "delivered",
            "received",
            "sent",
            "acked",
            "acked_in_time",
            "refused",
            "lost",
            "repeated",
            "disordered",
            "unlike",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.closed.update(other.closed)
        for room, seq in other.last_seq.items():
            self.last_seq[room] = max(seq, self.last_seq.get(room, 0))
        for name, value in other.extra.items():
            self.extra[name] = max(value, self.extra.get(name, value))


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of all tallies."""
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    return whole


class Order:
    """The seqs of one room as one socket received them."""

    __slots__ = ("disordered", "first", "last", "received", "repeated")

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.last = first
        self.received = 0
        self.repeated = 0
        self.disordered = 0

    def saw(self, seq: int) -> None:
        """Record the next seq. One that is not after the last is a repeat, or reordered if it had been missing."""
        self.received += 1
        if seq > self.last:
            self.last = seq
        elif self.last - self.first >= self.received:
            self.disordered += 1
        else:
            self.repeated += 1

    def lost(self, last: int) -> int:
        """Return how many seqs up to `last` never arrived."""
        return max(last - self.first - (self.received - self.repeated), 0)
