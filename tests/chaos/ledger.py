"""Record of everything sent, acknowledged, delivered and stored, and the verdict over it. Pure: times are passed in.

Rooms and inboxes are both channels whose items are numbered from 1 without gaps, so one set of rules covers both:

- an acknowledged item is stored once, as the ack stated;
- the stored items of a channel have the seqs 1 … n and distinct keys;
- a listener receives exactly the items after the seq at which its subscription began, each once, in order, as stored;
- nothing is stored or delivered that was not sent;
- what one client sent over one connection appears in a channel in the order in which it was sent;
- after the answer to a removal, or some time after a ban, no item that its user sends enters the channel, and the user
  receives no item that anyone sent.

A key names an item before it has a seq: a `clientMessageId`, the text of a message without one, an event id, the
symbol and price of an alert.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

LATE_MAX_S = 30.0  # a process may be frozen for 12 s, then reconnect, and fetch the items before the removal


class ViolationKind(StrEnum):
    """The kinds of violations of an item or of the run."""

    LOST = "acknowledged or stored, but not delivered"
    REPEATED = "delivered more than once to one listener"
    REORDERED = "delivered out of order"
    ALTERED = "delivered, but different from what is stored"
    NOT_STORED = "acknowledged, but not stored"
    STORED_TWICE = "stored more than once"
    ACKED_TWICE = "acknowledged as two different items"
    GAP = "a seq of the channel is missing or duplicate"
    UNKNOWN = "stored or delivered, but never sent"
    MISORDERED = "stored in another order than sent over one connection"
    ENTERED = "stored, but sent after its sender was removed or banned"
    EXPOSED = "delivered to a user after its removal or ban"
    FAILED = "another failure"


class Violation(NamedTuple):
    """One violation: its kind, the item, and the listener."""

    kind: ViolationKind
    channel: str
    key: str
    seq: int
    listener: str
    detail: str = ""

    def __str__(self) -> str:
        who = f" for {self.listener}" if self.listener else ""
        more = f": {self.detail}" if self.detail else ""
        return f"{self.kind.name}: {self.channel} seq {self.seq} key {self.key or '?'}{who}{more}"


class LedgerItem(NamedTuple):
    """An item as one party saw it. `id` is assigned by the server."""

    seq: int
    id: str
    key: str


class DeliveredItem(NamedTuple):
    """An item delivered to a listener, with the number of its connection."""

    item: LedgerItem
    at_s: float
    connection: int


class Transmission(NamedTuple):
    """The first and the last time that a key was written to a connection, as positions in the run's order."""

    first: int
    last: int
    key: str


class Bar(NamedTuple):
    """The end of a listener's access. Items sent within `grace_s` may still enter or be delivered."""

    at_s: float
    grace_s: float


class Ledger:
    """The record of a run; `check` judges it at the end."""

    def __init__(self) -> None:
        self.sent: dict[str, list[tuple[float, str, str]]] = {}  # by key: time, sender, channels
        self.channels_of: dict[str, set[str]] = {}
        self.acked: dict[str, dict[str, list[tuple[float, LedgerItem | None]]]] = {}  # by channel and key
        self.delivered: dict[tuple[str, str], list[DeliveredItem]] = {}  # by channel and listener
        self.begun: dict[tuple[str, str], int] = {}
        self.stored: dict[str, list[LedgerItem]] = {}
        self.written: dict[str, dict[tuple[str, int], Transmission]] = {}  # by key; sender and connection
        self.bars: dict[tuple[str, str], Bar] = {}  # by channel and listener
        self._writes = 0
        self.failures: list[Violation] = []

    # Recording ------------------------------------------------------------------------------------------------------

    def note_sent(self, key: str, by: str, channels: Sequence[str], at_s: float) -> None:
        """Record that an item was sent or resent."""
        self.sent.setdefault(key, []).append((at_s, by, " ".join(channels)))
        self.channels_of.setdefault(key, set()).update(channels)

    def note_written(self, key: str, by: str, connection: int) -> None:
        """Record that a client wrote an item to its connection, for the first time or again."""
        self._writes += 1
        over = self.written.setdefault(key, {})
        first = over[by, connection].first if (by, connection) in over else self._writes
        over[by, connection] = Transmission(first, self._writes, key)

    def note_barred(self, listener: str, channel: str, at_s: float, grace_s: float = 0.0) -> None:
        """Record that the end of a listener's access was confirmed; only the first time counts."""
        self.bars.setdefault((channel, listener), Bar(at_s, grace_s))

    def note_acked(self, key: str, channel: str, at_s: float, item: LedgerItem | None = None) -> None:
        """Record an acknowledgement, with the `item` that it names if any."""
        self.acked.setdefault(channel, {}).setdefault(key, []).append((at_s, item))

    def note_listening(self, listener: str, channel: str, seq: int) -> None:
        """Record that a listener's first subscription to a channel starts after `seq`."""
        self.begun.setdefault((channel, listener), seq)

    def note_delivered(self, listener: str, channel: str, item: LedgerItem, at_s: float, connection: int) -> None:
        """Record a delivery to a listener."""
        self.delivered.setdefault((channel, listener), []).append(DeliveredItem(item, at_s, connection))

    def note_stored(self, channel: str, items: Sequence[LedgerItem]) -> None:
        """Record everything that a channel holds at the end, oldest first."""
        self.stored[channel] = list(items)

    def note_failure(self, detail: str, *, channel: str = "", listener: str = "", seq: int = 0) -> None:
        """Record a failure that does not concern one item."""
        self.failures.append(Violation(ViolationKind.FAILED, channel, "", seq, listener, detail))

    # The verdict ----------------------------------------------------------------------------------------------------

    def check(self) -> list[Violation]:
        """Return all violations, in the order of the checks."""
        found = list(self.failures)
        for channel in sorted(self.stored.keys() | self.acked.keys()):
            found += self._check_stored(channel)
            found += self._check_acked(channel)
            found += self._check_order(channel)
        for (channel, listener), seq in sorted(self.begun.items()):
            found += self._check_listener(channel, listener, seq)
        for (channel, listener), bar in sorted(self.bars.items()):
            found += self._check_bar(channel, listener, bar)
        for channel, listener in sorted(self.delivered.keys() - self.begun.keys()):
            got = self.delivered[channel, listener][0].item
            found.append(
                Violation(ViolationKind.UNKNOWN, channel, got.key, got.seq, listener, "without a subscription")
            )
        return found

    def _check_stored(self, channel: str) -> Iterator[Violation]:
        items = self.stored.get(channel, [])
        for number, item in enumerate(items, 1):
            if item.seq != number:
                yield Violation(ViolationKind.GAP, channel, item.key, item.seq, "", f"item {number} of {len(items)}")
                break
        keys = Counter(item.key for item in items)
        for item in items:
            if keys[item.key] > 1:
                yield Violation(ViolationKind.STORED_TWICE, channel, item.key, item.seq, "", f"{keys[item.key]} times")
            if channel not in self.channels_of.get(item.key, ()):
                yield Violation(ViolationKind.UNKNOWN, channel, item.key, item.seq, "", "stored")

    def _check_acked(self, channel: str) -> Iterator[Violation]:
        stored = {item.key: item for item in self.stored.get(channel, [])}
        for key, acks in self.acked.get(channel, {}).items():
            told = {item for _, item in acks if item is not None}
            if len(told) > 1:
                yield Violation(ViolationKind.ACKED_TWICE, channel, key, 0, "", f"as {sorted(told)}")
            if key not in stored or (told and stored[key] not in told):
                what = f"acked as {sorted(told)}, stored is {stored.get(key)}"
                yield Violation(ViolationKind.NOT_STORED, channel, key, next(iter(told)).seq if told else 0, "", what)

    def _check_order(self, channel: str) -> Iterator[Violation]:
        """Compare the log with the order of writes, of items that were written to one connection only.

        Of an item that was repeated over another connection, it is unknown which copy was stored.
        """
        seqs = {item.key: item.seq for item in self.stored.get(channel, [])}
        streams: dict[tuple[str, int], list[Transmission]] = {}
        for key in seqs:
            if len(over := self.written.get(key, {})) == 1:
                ((stream, written),) = over.items()
                streams.setdefault(stream, []).append(written)
        for (by, connection), transmissions in sorted(streams.items()):
            for earlier, later in _misordered(sorted(transmissions), seqs):
                what = f"connection {connection}, behind key {earlier.key}, which is seq {seqs[earlier.key]}"
                yield Violation(ViolationKind.MISORDERED, channel, later.key, seqs[later.key], by, what)

    def _check_bar(self, channel: str, listener: str, bar: Bar) -> Iterator[Violation]:
        limit_s = self._working_after(bar.at_s, bar.grace_s)
        for item in self.stored.get(channel, []):
            at_s, by, _ = self.sent.get(item.key, [(0.0, "", "")])[0]
            if by == listener and at_s > limit_s:
                what = f"sent at {at_s:.3f} s, barred at {bar.at_s:.3f} s"
                yield Violation(ViolationKind.ENTERED, channel, item.key, item.seq, listener, what)
        for item, delivered_s, _ in self.delivered.get((channel, listener), []):
            at_s = self.sent.get(item.key, [(0.0, "", "")])[0][0]
            if at_s > limit_s or delivered_s > limit_s + LATE_MAX_S:
                what = f"sent at {at_s:.3f} s, delivered at {delivered_s:.3f} s, barred at {bar.at_s:.3f} s"
                yield Violation(ViolationKind.EXPOSED, channel, item.key, item.seq, listener, what)

    def _working_after(self, since_s: float, for_s: float) -> float:
        """Return the time at which the system has worked for this long. Only seconds with an acknowledgement count.

        A ban that waits in the broker takes effect only once broker and database are back, as every message does.
        """
        if not for_s:
            return since_s
        acks = (at_s for by_key in self.acked.values() for acks in by_key.values() for at_s, _ in acks)
        working = sorted({int(at_s - since_s) for at_s in acks if at_s > since_s})
        return since_s + working[int(for_s) - 1] + 1 if len(working) >= for_s else math.inf

    def _check_listener(self, channel: str, listener: str, begun: int) -> Iterator[Violation]:
        got = [delivered.item for delivered in self.delivered.get((channel, listener), [])]
        stored = {item.seq: item for item in self.stored.get(channel, [])}
        times = Counter(item.seq for item in got)
        ends = max(times if (channel, listener) in self.bars else stored, default=0)  # access may end anywhere
        for seq, item in stored.items():
            if begun < seq <= ends and not times[seq]:
                yield Violation(ViolationKind.LOST, channel, item.key, seq, listener)
        for earlier, later in pairwise(got):
            if later.seq < earlier.seq:
                yield Violation(
                    ViolationKind.REORDERED, channel, later.key, later.seq, listener, f"behind {earlier.seq}"
                )
        for item in dict.fromkeys(got):
            if times[item.seq] > 1:
                yield Violation(
                    ViolationKind.REPEATED, channel, item.key, item.seq, listener, f"{times[item.seq]} times"
                )
            elif item.seq <= begun:
                yield Violation(
                    ViolationKind.REPEATED, channel, item.key, item.seq, listener, f"it began behind {begun}"
                )
            if stored.get(item.seq) != item:
                wrong = ViolationKind.ALTERED if item.seq in stored else ViolationKind.UNKNOWN
                yield Violation(wrong, channel, item.key, item.seq, listener, f"stored is {stored.get(item.seq)}")

    def history(self, violation: Violation) -> list[str]:
        """Return everything that happened to an item, in order of time."""
        channel, key, seq = violation.channel, violation.key, violation.seq
        events = [(at_s, f"sent by {by} to {where}") for at_s, by, where in self.sent.get(key, [])]
        for at_s, item in self.acked.get(channel, {}).get(key, []):
            events.append((at_s, f"acked as {item}"))
        for (where, listener), deliveries in self.delivered.items():
            if where == channel and violation.listener in ("", listener):
                for index, one in enumerate(deliveries):
                    if (seq and one.item.seq == seq) or (key and one.item.key == key):
                        before = deliveries[index - 1].item.seq if index else self.begun.get((channel, listener))
                        told = f"delivered to {listener} as seq {one.item.seq}, connection {one.connection}"
                        events.append((one.at_s, f"{told}, behind seq {before}"))
        for item in self.stored.get(channel, []):
            if (seq and item.seq == seq) or (key and item.key == key):
                events.append((float("inf"), f"stored as {item}"))
        return [f"{at_s:9.3f} s  {what}" for at_s, what in sorted(events)]


def _misordered(
    transmissions: Sequence[Transmission], seqs: Mapping[str, int]
) -> Iterator[tuple[Transmission, Transmission]]:
    """Return, for each item that is stored before one written entirely earlier, such a pair: earlier, later."""
    for number, later in enumerate(transmissions):
        for earlier in transmissions[:number]:
            if earlier.last < later.first and seqs[earlier.key] > seqs[later.key]:
                yield earlier, later
                break
