"""Ticks that the feed refuses at the last moment: neither their events nor their ids count as seen."""

from collections.abc import Collection
from typing import Any, cast

import pytest

from market_feed.feed import Feed
from market_feed.market import Market
from market_feed.quotes import Tick
from market_feed.sources.amqp import TickEvents
from market_feed.sources.mapping import FeedSpec, UpstreamTick
from market_feed.sources.websocket import WebSocketFeed
from shared.bus.consumer import Line
from shared.errors import Unavailable
from tests.support.events import cloud_event

NOW_MS = 1_800_000_000_000


class Nothing:
    """A part of the service that does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class IndexlessJournal(Nothing):
    """A journal without an index."""

    async def look_up(self, keys: Collection[bytes]) -> None:
        pass

    async def commit(self) -> None:
        pass


class FeedStage:
    """A feed whose lease is lost at chosen looks."""

    def __init__(self) -> None:
        self.market = Market(1)
        self.lost_at: set[int] = set()
        self.looks = 0
        journal, nothing = cast(Any, IndexlessJournal()), cast(Any, Nothing())
        self.feed = Feed(self.market, journal, nothing, nothing, nothing, self.owns, lambda: NOW_MS)

    def owns(self) -> bool:
        self.looks += 1
        return self.looks not in self.lost_at


def line() -> Line:
    body = cloud_event("evt_1", "market.tick", {"symbol": "X", "price": 1.5})
    return Line(body, None, "market.tick", redelivered=False)


@pytest.mark.parametrize("look", [1, 2, 3])
async def test_event_that_was_refused_is_applied_when_it_is_tried_again(look: int) -> None:
    stage = FeedStage()
    stage.lost_at = {look}
    events = TickEvents(stage.feed, 60.0, lambda: NOW_MS)
    with pytest.raises(Unavailable):
        await events.handle([line()])
    await events.handle([line()])
    await events.handle([line(), line()])
    assert stage.market.pending == 1


def test_upstream_tick_that_was_skipped_counts_when_it_is_sent_again() -> None:
    stage = FeedStage()
    stage.lost_at = {1}
    upstream = WebSocketFeed(stage.feed, cast(FeedSpec, Nothing()), lambda: NOW_MS)
    read = [UpstreamTick(Tick("X", 1.5, NOW_MS), "tick 1")]
    upstream._offer(read)
    assert stage.market.pending == 0
    upstream._offer(read + read)
    assert stage.market.pending == 1
