"""One channel of the hub: its subscribers, its order, and the lanes that its items leave on. Pure."""

from collections.abc import Iterator
from typing import Protocol

from gateway.fanout.batch import Batch, Item
from gateway.fanout.resequencer import Stream


class Sink(Protocol):
    """A socket, as the hub sees it. No method raises, and none calls back into the hub."""

    user_id: str
    session_id: str
    opened_ms: int

    def write(self, batch: Batch) -> None:
        """Send a batch; a slow socket keeps of its items what must be kept."""

    def unsubscribed(self, channel: str) -> None:
        """The server has ended the socket's subscription."""

    def stranded(self) -> None:
        """The socket cannot be brought up to date: it is to be closed, so that its client resumes."""


class Written:
    """What has been written since it was last asked for. `sample` is the first buffer of a flush."""

    __slots__ = ("frames", "sample", "size_bytes", "writes")

    def __init__(self, sample: bytes | None = None) -> None:
        self.writes = 0
        self.frames = 0
        self.size_bytes = 0
        self.sample = sample

    def add(self, sockets: int, frames: int, size_bytes: int) -> None:
        """`frames` of `size_bytes` together went to each of `sockets`."""
        self.writes += sockets
        self.frames += sockets * frames
        self.size_bytes += sockets * size_bytes


class Lane:
    """Sockets that get the same bytes at the same time."""

    __slots__ = ("due", "flushed_at_s", "interval_s", "items", "only_newest", "sinks")

    def __init__(self, interval_s: float, *, only_newest: bool) -> None:
        self.interval_s = interval_s
        self.only_newest = only_newest
        self.sinks: set[Sink] = set()
        self.items: list[Item] = []
        self.flushed_at_s = 0.0
        self.due = False

    def flush(self, now_s: float, written: Written) -> None:
        """Write what has gathered. HOT: one call a socket, nothing else."""
        items, self.items = self.items, []
        self.flushed_at_s = now_s
        if not items:
            return
        batch = Batch(items)
        for sink in self.sinks:
            sink.write(batch)
        written.add(len(self.sinks), len(items), len(batch.data))
        if written.sample is None and self.sinks and not self.only_newest:
            written.sample = batch.data


class Joiner:
    """A socket between `join` and `admit`: what was delivered meanwhile, and where it stood if it listened before.

    At most 10,000 items wait, and as many without an order; of the ordered, what is beyond becomes a gap to be filled.
    """

    __slots__ = ("aside", "asks", "at_seq", "check", "direct_from", "lingers_until_s", "overtaken", "waiting")

    def __init__(self, at_seq: int | None, direct_from: int | None = None) -> None:
        self.at_seq = at_seq
        self.direct_from = direct_from
        self.waiting: dict[int, bytes] = {}
        self.aside: list[bytes] = []  # without an order; only while held, who subscribes does not miss them
        self.asks = True  # subscribes by itself, so the answer to that admits it
        self.check = 0  # the check that holds it; 0 is none
        self.lingers_until_s: float | None = None  # its attempt failed, and it is expected to try again
        self.overtaken = False  # a check began while it asked: the answer may be from before what gave cause to it


class Channel:
    """One channel: its subscribers, its order, its lanes."""

    __slots__ = (
        "direct",
        "joining",
        "lane",
        "late",
        "late_since_s",
        "name",
        "newest",
        "newest_seq",
        "prices",
        "stream",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.lane = Lane(0.0, only_newest=False)
        self.prices: dict[float, Lane] = {}
        self.stream = Stream()
        self.joining: dict[Sink, Joiner] = {}
        self.late: dict[Sink, int] = {}  # admitted at a seq that has not come here yet
        self.late_since_s = 0.0
        self.direct: dict[Sink, int] = {}  # who gets a direct room unasked, and behind which seq that began
        self.newest: Item | None = None
        self.newest_seq = 0

    def sinks(self) -> Iterator[Sink]:
        """Every socket that has anything to do with the channel."""
        yield from self.lane.sinks
        yield from self.joining
        yield from self.late
        for lane in self.prices.values():
            yield from lane.sinks

    def position(self, sink: Sink) -> int | None:
        """Up to where `sink` has everything; None if it does not listen."""
        if sink in self.lane.sinks:
            return self.stream.last_seq
        return self.late.get(sink)

    def is_admitted(self, sink: Sink) -> bool:
        """Whether `sink` is not just asking; who was admitted and asks again is."""
        joiner = self.joining.get(sink)
        return joiner is None or joiner.at_seq is not None

    @property
    def is_empty(self) -> bool:
        """Whether nobody needs the channel."""
        return next(self.sinks(), None) is None
