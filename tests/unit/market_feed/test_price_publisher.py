"""Prices out: conflated per symbol, and delivered again until confirmed."""

import asyncio
import json
from typing import Any

from market_feed.market import Market
from market_feed.price_publisher import PricePublisher
from market_feed.quotes import Quote, Tick
from shared.bus.delivery import Delivery
from shared.errors import Unavailable
from tests.support.publishing import PublisherStub


class PriceBroker(PublisherStub):
    """Records deliveries, and confirms them unless the test says otherwise."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.confirms = True

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        self.deliveries.append(delivery)
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.confirms:
            confirm.set_result(None)
        else:
            confirm.set_exception(Unavailable("not confirmed"))
        return confirm

    def taken(self) -> list[dict[str, Any]]:
        """Return the data of the deliveries since the last call."""
        frames, self.deliveries = [json.loads(delivery.frame)["data"] for delivery in self.deliveries], []
        return frames


def market_of(price: float = 1.0) -> tuple[Market, Quote]:
    market = Market(1)
    market.ingest([Tick("X", price, 1000)])
    return market, market.quotes["X"]


async def test_moves_of_one_turn_are_one_delivery_of_the_newest_price() -> None:
    market, quote = market_of()
    broker = PriceBroker()
    prices = PricePublisher(broker, market.quotes)
    prices.moved([quote])
    market.ingest([Tick("X", 2.0, 2000)])
    prices.moved([quote])
    prices.flush()
    [data] = broker.taken()
    assert (data["price"], data["seq"]) == (2.0, quote.seq)


async def test_unconfirmed_price_is_delivered_again() -> None:
    market, quote = market_of()
    broker = PriceBroker()
    prices = PricePublisher(broker, market.quotes)
    broker.confirms = False
    prices.moved([quote])
    prices.flush()
    await asyncio.sleep(0)  # the callback of the confirm
    broker.taken()
    broker.confirms = True
    prices.retry()
    prices.flush()
    assert len(broker.taken()) == 1
    prices.retry()
    prices.flush()
    assert broker.taken() == []


async def test_prices_wait_while_the_broker_is_unreachable() -> None:
    market, quote = market_of()
    broker = PriceBroker()
    broker.is_connected = False
    prices = PricePublisher(broker, market.quotes)
    prices.moved([quote])
    prices.flush()
    prices.retry()
    assert broker.taken() == []
    broker.is_connected = True
    prices.retry()
    prices.flush()
    assert len(broker.taken()) == 1


async def test_frame_reports_that_a_stale_price_moves_again() -> None:
    market, quote = market_of()
    broker = PriceBroker()
    prices = PricePublisher(broker, market.quotes)
    market.mark_stale("X")
    prices.became_stale(["X"])
    prices.flush()
    prices.moved([quote])
    quote.stale = False
    prices.flush()
    prices.moved([quote])
    prices.flush()
    assert [data.get("stale") for data in broker.taken()] == [True, False, None]
