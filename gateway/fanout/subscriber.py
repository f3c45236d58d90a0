"""The states of a subscriber of one channel. Pure.

    absent ── join ──> JOINING
    absent ── a direct message ──> LIVE
    JOINING ── go_live ──> LIVE
    JOINING ── go_live (the answer is ahead of the channel) ──> AHEAD
    JOINING ── resume (it listened before) ──> LIVE, AHEAD or SUSPENDED
    JOINING ── linger ──> LINGERING
    LINGERING ── join ──> JOINING
    LINGERING ── 10 s without a join ──> absent; its socket is closed if a direct message waits for it, or comes later
    LIVE, AHEAD ── join ──> JOINING; a socket of a channel without an order stays LIVE meanwhile
    LIVE, AHEAD ── suspend ──> SUSPENDED
    SUSPENDED ── pass_check ──> LIVE or AHEAD
    SUSPENDED ── access denied ──> absent
    SUSPENDED ── join ──> JOINING, and still waiting for the check
    LIVE ── rewind (another socket needs older items) ──> AHEAD
    AHEAD ── the channel has caught up ──> LIVE

LIVE sockets receive the channel's writes. AHEAD sockets have received more than the channel has passed on, and
rejoin it once it has caught up.

JOINING, SUSPENDED and LINGERING sockets receive nothing: a `Subscriber` buffers for each of them, so that nothing is
lost before they go live, and nothing is repeated afterwards.

LIVE and AHEAD sockets have no `Subscriber`: a channel with 10,000 sockets keeps a set of them (`Lane.sinks`) and a
dict.
"""

from collections.abc import Sequence
from enum import Enum, auto

from gateway.fanout.resequencer import BACKLOG_MAX

LINGER_S = 10.0


class SubscriberState(Enum):
    """The state of a socket that waits; a LIVE or AHEAD one is in the stream instead."""

    JOINING = auto()
    SUSPENDED = auto()
    LINGERING = auto()


class Subscriber:
    """A socket that is JOINING, SUSPENDED or LINGERING, and the items buffered for it.

    It has received everything through `position`, if it listened before. Bound: 10,000 ordered items, and
    as many unordered ones; ordered items beyond that become a gap to be filled.
    """

    __slots__ = (
        "buffered",
        "check",
        "direct_from",
        "is_overtaken",
        "lingers_until_s",
        "position",
        "state",
        "unordered",
    )

    def __init__(self, position: int | None, direct_from: int | None = None) -> None:
        self.state = SubscriberState.JOINING
        self.position = position
        self.direct_from = direct_from  # its implicit subscription to a direct room began after this position
        self.buffered: dict[int, bytes] = {}
        self.unordered: list[bytes] = []  # kept only during a check of access, not while subscribing
        self.check = 0  # the number of the check that it must pass; 0 without one
        self.lingers_until_s = 0.0
        self.is_overtaken = False  # a check began during its attempt, so the answer may be outdated

    def retry(self) -> None:
        """Enter JOINING from any state, because the client subscribes."""
        self.state = SubscriberState.JOINING

    def suspend(self, check: int) -> None:
        """Enter SUSPENDED, to wait for a check."""
        self.state = SubscriberState.SUSPENDED
        self.check = check

    def note_check(self, check: int) -> None:
        """Record that check `check` of all subscribers has begun.

        A socket that listened before must pass this check instead of an earlier one. A JOINING socket keeps its state,
        but must query its access again, because the answer to its first query may be outdated.
        """
        self.is_overtaken = self.state is SubscriberState.JOINING
        if self.check or self.position is not None:
            self.check = check

    def take_overtaken(self) -> bool:
        """Return whether a check began after the socket's query, and reset the mark."""
        is_overtaken, self.is_overtaken = self.is_overtaken, False
        return is_overtaken

    def linger(self, now_s: float) -> None:
        """Enter LINGERING: the attempt failed, and the client may try again."""
        self.state = SubscriberState.LINGERING
        self.lingers_until_s = now_s + LINGER_S

    def note_direct(self, position: int) -> None:
        """Note that direct messages from `position` on are buffered for a LINGERING socket."""
        if self.state is SubscriberState.LINGERING and self.direct_from is None:
            self.direct_from = position - 1

    def keep_unordered(self, data: bytes) -> None:
        """Buffer an unordered item if the socket must pass a check."""
        if self.check and len(self.unordered) < BACKLOG_MAX:
            self.unordered.append(data)

    def all_between(self, after: int, through: int) -> Sequence[bytes] | None:
        """Return the items with `after` < position ≤ `through`, in order; None unless all of them are buffered."""
        items = [data for position, data in sorted(self.buffered.items()) if after < position <= through]
        return items if len(items) == through - after else None
