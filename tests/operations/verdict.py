"""What a demonstration counts: messages lost, repeated or out of order, and pauses without acknowledgements.

`histories` holds the seqs of every stored message, by room, in order.
"""

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.operations.stage import SETTLE_TIMEOUT_S
from tests.operations.trader import Trader

Histories = Mapping[str, Sequence[int]]


class Pause(NamedTuple):
    """The longest times of a step, in seconds: without any ack, until one message's ack, without a price."""

    without_ack_s: float
    until_ack_s: float
    without_price_s: float

    def __str__(self) -> str:
        return (
            f"longest without an ack {self.without_ack_s:.2f} s, longest until an ack {self.until_ack_s:.2f} s, "
            f"longest without a price {self.without_price_s:.2f} s"
        )


async def until_delivered(traders: Iterable[Trader], histories: Histories) -> None:
    """Wait until every client has everything, at most a minute; the missing items are counted later."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if all(len(seqs) >= len(histories[room]) for trader in traders for room, seqs in trader.seqs.items()):
            return
        await asyncio.sleep(0.1)


async def until_notified(traders: Iterable[Trader], published: Mapping[str, int]) -> None:
    """Wait until every user has as many notifications as were published, at most a minute; as `until_delivered`."""
    inboxes = {trader.name: trader.inbox for trader in traders if trader.inbox is not None}
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if all(len(inboxes[user]) >= count for user, count in published.items()):
            return
        await asyncio.sleep(0.1)


def message_faults(traders: Sequence[Trader], histories: Histories) -> dict[str, int]:
    """Return the number of each kind of fault."""
    acked = [place for trader in traders for place in trader.acked.values()]
    logs = [(seqs, histories[room]) for trader in traders for room, seqs in trader.seqs.items()]
    return {
        "acked but not stored": sum(seq not in set(histories[room]) for room, seq in acked),
        "acked under one seq twice": len(acked) - len(set(acked)),
        "stored without being acked": abs(sum(map(len, histories.values())) - len(acked)),
        "rooms with a gap in seq": sum(list(seqs) != list(range(1, len(seqs) + 1)) for seqs in histories.values()),
        "deliveries lost": sum(len(set(stored) - set(got)) for got, stored in logs),
        "deliveries repeated": sum(len(got) - len(set(got)) for got, _ in logs),
        "deliveries out of order": sum(
            later <= earlier for got, _ in logs for earlier, later in itertools.pairwise(got)
        ),
        "resumptions not recovered": sum(trader.not_recovered for trader in traders),
        "upgrades refused": sum(trader.refused for trader in traders),
    }


def inbox_faults(traders: Sequence[Trader], published: Mapping[str, int]) -> dict[str, int]:
    """Return the faults of inboxes; `published` is the number of events for each user."""
    inboxes = {trader.name: trader.inbox for trader in traders if trader.inbox is not None}
    return {
        "notifications lost": sum(count - len(set(inboxes[user])) for user, count in published.items()),
        "notifications repeated": sum(len(seqs) - len(set(seqs)) for seqs in inboxes.values()),
        "notifications out of order": sum(seqs != sorted(seqs) for seqs in inboxes.values()),
        "prices older than one before": sum(trader.prices_back for trader in traders),
    }


def pause_since(traders: Sequence[Trader], since_s: float) -> Pause:
    """Return the pauses from a time until now."""
    now_s = time.monotonic()
    acks = [ack for trader in traders for ack in trader.acks if ack.acked_at_s >= since_s]
    waits_s = [ack.acked_at_s - ack.sent_at_s for ack in acks]
    priced_s = [at_s for trader in traders for at_s in trader.priced_at_s if at_s >= since_s]
    return Pause(
        _longest_gap_s([since_s, *(ack.acked_at_s for ack in acks), now_s]),
        max(waits_s, default=now_s - since_s),
        _longest_gap_s([since_s, *priced_s, now_s]),
    )


def _longest_gap_s(times_s: Sequence[float]) -> float:
    return max(later - earlier for earlier, later in itertools.pairwise(sorted(times_s)))
