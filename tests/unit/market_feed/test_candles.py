"""Candles are independent of the order of ticks, writes and reads."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from market_feed.candles import INTERVAL_MS, Candle, CandleBook, CandleKey
from market_feed.quotes import Tick
from shared.commands.market import Interval

MINUTE_MS = 60_000
Disk = dict[CandleKey, Candle]


def copy_of(candle: Candle) -> Candle:
    """Return a copy, as if read from disk: the same values in another object."""
    return Candle(*(getattr(candle, name) for name in Candle.__struct_fields__))


def write(book: CandleBook, disk: Disk) -> None:
    """Write the unwritten candles."""
    disk.update({kept.key: copy_of(kept.candle) for kept in book.take_unwritten()})
    book.written()


def read_late_candles(book: CandleBook, disk: Disk) -> None:
    """Read back the candles that late ticks wait for."""
    missing = book.missing()
    book.apply_deferred(missing, {key: copy_of(disk[key]) for key in missing if key in disk})


def all_candles(book: CandleBook, disk: Disk, symbols: Iterable[str]) -> Disk:
    """Return the candles of disk and memory."""
    found = dict(disk)
    for symbol in symbols:
        for interval in Interval:
            for open_ms, candle in book.held(symbol, interval).items():
                found[CandleKey(symbol, interval, open_ms)] = candle
    return found


def by_hand(ticks: Iterable[Tick]) -> dict[CandleKey, tuple[float, float, float, float, float]]:
    """Return open, high, low, close and volume of every candle, computed the plainest way."""
    groups: dict[CandleKey, list[Tick]] = {}
    for tick in ticks:
        for interval, length_ms in INTERVAL_MS.items():
            key = CandleKey(tick.symbol, interval, tick.at_ms // length_ms * length_ms)
            groups.setdefault(key, []).append(tick)
    found = {}
    for key, group in groups.items():
        ordered = sorted(group, key=lambda tick: tick.at_ms)
        prices = [tick.price for tick in ordered]
        volume = sum(tick.volume or 0.0 for tick in group)
        found[key] = (prices[0], max(prices), min(prices), prices[-1], volume)
    return found


def values(candles: Disk) -> dict[CandleKey, tuple[float, float, float, float, float]]:
    return {key: (c.open, c.high, c.low, c.close, c.volume) for key, c in candles.items()}


def test_ticks_of_one_minute_make_one_candle_per_interval() -> None:
    book = CandleBook()
    for seq, (price, at_ms) in enumerate(((2.0, 1000), (5.0, 2000), (1.0, 3000), (3.0, 59_999)), 1):
        book.apply(Tick("X", price, at_ms, volume=1.0), seq)
    for interval in Interval:
        (candle,) = book.held("X", interval).values()
        assert (candle.open_ms, candle.open, candle.high, candle.low, candle.close) == (0, 2.0, 5.0, 1.0, 3.0)
        assert (candle.volume, candle.seq) == (4.0, 4)


def test_newer_candle_queues_previous_one() -> None:
    book = CandleBook()
    book.apply(Tick("X", 2.0, 0), 1)
    assert book.take_unwritten() == []
    book.written()
    book.apply(Tick("X", 3.0, MINUTE_MS), 2)
    assert [kept.key for kept in book.take_unwritten()] == [CandleKey("X", Interval.MINUTE, 0)]


def test_late_tick_corrects_high_and_low_but_not_close() -> None:
    book = CandleBook()
    for seq, (price, at_ms) in enumerate(((2.0, 1000), (3.0, 9000), (7.0, 5000), (1.0, 4000)), 1):
        book.apply(Tick("X", price, at_ms), seq)
    candle = book.held("X", Interval.MINUTE)[0]
    assert (candle.open, candle.high, candle.low, candle.close) == (2.0, 7.0, 1.0, 3.0)


def test_tick_before_the_first_corrects_the_open() -> None:
    book = CandleBook()
    book.apply(Tick("X", 2.0, 5000), 1)
    book.apply(Tick("X", 4.0, 1000), 2)
    assert book.held("X", Interval.MINUTE)[0].open == 4.0


def test_late_tick_waits_for_its_written_candle_and_corrects_it() -> None:
    book, disk = CandleBook(), Disk()
    book.apply(Tick("X", 2.0, 1000), 1)
    book.apply(Tick("X", 3.0, MINUTE_MS), 2)
    write(book, disk)
    book.apply(Tick("X", 9.0, 2000), 3)
    assert book.missing() == [CandleKey("X", Interval.MINUTE, 0)]
    read_late_candles(book, disk)
    assert not book.missing()
    write(book, disk)
    assert values(disk)[CandleKey("X", Interval.MINUTE, 0)] == (2.0, 9.0, 2.0, 9.0, 0.0)


def test_late_tick_waits_for_write_of_its_candle() -> None:
    book, disk = CandleBook(), Disk()
    book.apply(Tick("X", 2.0, 1000), 1)
    book.apply(Tick("X", 3.0, MINUTE_MS), 2)
    writing = book.take_unwritten()
    book.apply(Tick("X", 9.0, 2000), 3)
    assert book.missing() == []
    assert writing[0].candle.high == 2.0
    disk.update({kept.key: copy_of(kept.candle) for kept in writing})
    book.written()
    read_late_candles(book, disk)
    assert book.held("X", Interval.MINUTE)[0].high == 9.0


def test_unwritten_candles_wait_again() -> None:
    book = CandleBook()
    book.apply(Tick("X", 2.0, 1000), 1)
    book.apply(Tick("X", 3.0, MINUTE_MS), 2)
    first = book.take_unwritten()
    book.write_failed()
    assert book.backlog == 1
    assert book.take_unwritten() == first


def test_candle_being_written_can_be_read() -> None:
    book = CandleBook()
    book.apply(Tick("X", 2.0, 1000), 1)
    book.apply(Tick("X", 3.0, MINUTE_MS), 2)
    book.take_unwritten()
    assert sorted(book.held("X", Interval.MINUTE)) == [0, MINUTE_MS]


def test_tick_applied_twice_changes_nothing() -> None:
    candle = Candle(0, 2.0, 2.0, 2.0, 2.0, 1.0, 500, 500, 7)
    candle.add(Tick("X", 9.0, 600, volume=5.0), 7)
    assert candle == Candle(0, 2.0, 2.0, 2.0, 2.0, 1.0, 500, 500, 7)


ticks = st.builds(
    Tick,
    symbol=st.sampled_from(["A", "B"]),
    price=st.integers(1, 50).map(float),
    at_ms=st.integers(0, 200 * MINUTE_MS),
    volume=st.none() | st.integers(0, 9).map(float),
)
steps = st.lists(ticks | st.sampled_from(["write", "read", "fail"]), max_size=80)


@given(steps)
def test_candles_equal_reference(taken: list[Tick | str]) -> None:
    book, disk, seen = CandleBook(), Disk(), set()
    applied: list[Tick] = []
    for step in taken:
        match step:
            case "write":
                write(book, disk)
            case "read":
                read_late_candles(book, disk)
            case "fail":
                book.take_unwritten()
                book.write_failed()
            case Tick() if (step.symbol, step.at_ms) not in seen:
                seen.add((step.symbol, step.at_ms))
                applied.append(step)
                book.apply(step, len(applied))
    read_late_candles(book, disk)
    assert values(all_candles(book, disk, "AB")) == by_hand(applied)
    write(book, disk)
    assert not book.backlog


def test_late_tick_that_came_during_a_failed_write_counts() -> None:
    """Once the candle has seen a later tick, it would ignore the deferred one."""
    book = CandleBook()
    for second in (0, 60_000):  # the first minute's candle is no longer the newest
        book.apply(Tick("X", 1.0, second, volume=1.0), second + 1)
    book.take_unwritten()
    book.apply(Tick("X", 9.0, 1_000, volume=1.0), 100_000)
    book.write_failed()
    book.apply(Tick("X", 2.0, 2_000, volume=1.0), 100_001)
    candles = {candle.key: candle.candle for candle in book.take_unwritten()}
    minute = candles[CandleKey("X", Interval.MINUTE, 0)]
    assert (minute.high, minute.volume) == (9.0, 3.0)
