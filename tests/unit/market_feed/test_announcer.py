"""Announced ticks are kept until confirmed, and sent again after a failure."""

import asyncio

import msgspec
import pytest

from market_feed.announcer import Announcer
from market_feed.quotes import Tick
from shared.bus.topology import NOTIFIER_TICKS, REQUESTS
from shared.commands.market import AppliedTicks
from shared.errors import Unavailable
from tests.support.publishing import PublisherStub

TICKS = [Tick("X", 1.5, 1000), Tick("Y", 2.5, 2000)]


class AnnouncerBroker(PublisherStub):
    """Accepts lines, and confirms them, refuses them, or leaves the confirm open."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.confirms: list[asyncio.Future[None]] = []
        self.is_unreachable = False

    def publish(self, exchange: str, key: str, line: bytes) -> "asyncio.Future[None]":
        assert (exchange, key) == (REQUESTS, NOTIFIER_TICKS)
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_unreachable:
            confirm.set_exception(Unavailable("unreachable"))
        else:
            self.lines.append(line)
        self.confirms.append(confirm)
        return confirm

    def confirm_all(self) -> None:
        for confirm in self.confirms:
            if not confirm.done():
                confirm.set_result(None)


async def test_line_carries_symbol_price_seq_and_time() -> None:
    broker = AnnouncerBroker()
    Announcer(broker).announce(TICKS, [7, 9])
    assert broker.lines == [b'{"ticks":[["X",1.5,7,1000],["Y",2.5,9,2000]]}']
    broker.confirm_all()


async def test_many_ticks_are_split_into_lines() -> None:
    broker = AnnouncerBroker()
    Announcer(broker).announce(TICKS * 1200, list(range(2400)))
    counts = [len(msgspec.json.decode(line, type=AppliedTicks).ticks) for line in broker.lines]
    assert counts == [1000, 1000, 400]
    broker.confirm_all()


async def test_confirmed_waits_for_all_confirms() -> None:
    broker = AnnouncerBroker()
    announcer = Announcer(broker)
    announcer.announce(TICKS, [1, 2])
    asyncio.get_running_loop().call_soon(broker.confirm_all)
    await announcer.confirmed()
    announcer.resend()
    assert len(broker.lines) == 1


async def test_unconfirmed_lines_are_sent_again() -> None:
    broker = AnnouncerBroker()
    announcer = Announcer(broker)
    broker.is_unreachable = True
    announcer.announce(TICKS, [1, 2])
    with pytest.raises(Unavailable):
        await announcer.confirmed()
    broker.is_unreachable = False
    announcer.resend()
    broker.confirm_all()
    await announcer.confirmed()
    assert len(broker.lines) == 1


async def test_oldest_lines_are_dropped_beyond_the_bound() -> None:
    broker = AnnouncerBroker()
    announcer = Announcer(broker, max_bytes=100)
    broker.is_unreachable = True
    for seq in range(5):
        announcer.announce(TICKS, [seq, seq])
    broker.is_unreachable = False
    announcer.resend()
    assert [msgspec.json.decode(line, type=AppliedTicks).ticks[0].seq for line in broker.lines] == [3, 4]
    broker.confirm_all()
