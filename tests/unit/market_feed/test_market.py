"""The market's memory and its disk: every event takes effect exactly once despite a crash at any moment."""

from typing import Literal, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from market_feed.candles import Candle, CandleKey
from market_feed.market import GROUP_SYMBOLS, Checkpoint, JournalBatch, Market, Position, decode_states, split_keys
from market_feed.quotes import Tick, first_seq
from shared.bus.events import short_event_key
from shared.times import MILLISECONDS_PER_DAY
from tests.unit.market_feed.test_candles import all_candles, by_hand, copy_of, values

MINUTE_MS = 60_000
SEEN_MAX = 2  # so that most repetitions are found in the index


class MarketDisk:
    """The disk as plain values. A checkpoint may reach it in part: one candle, all candles and one group, or all."""

    def __init__(self) -> None:
        self.journal: list[JournalBatch] = []
        self.index: set[bytes] = set()
        self.candles: dict[CandleKey, Candle] = {}
        self.groups: dict[int, bytes] = {}
        self.complete_through_batch = 0
        self.positions: dict[str, int] = {}

    def put(self, checkpoint: Checkpoint, parts: int) -> None:
        if parts:
            self.index.update(split_keys(checkpoint.event_keys))
        for kept in checkpoint.candles if parts >= 2 else checkpoint.candles[:parts]:
            before = self.candles.get(kept.key)
            if before is None or before.seq <= kept.candle.seq:
                self.candles[kept.key] = copy_of(kept.candle)
        if parts >= 2:
            self.groups.update(list(checkpoint.groups.items())[: None if parts > 2 else 1])
        if parts > 2:
            self.complete_through_batch, self.positions = checkpoint.complete_through_batch, checkpoint.positions


def read_late_candles(market: Market, disk: MarketDisk) -> None:
    while missing := market.book.missing():
        market.book.apply_deferred(missing, {key: copy_of(disk.candles[key]) for key in missing if key in disk.candles})


def commit(market: Market, disk: MarketDisk) -> None:
    if (batch := market.pop_batch()) is not None:
        disk.journal.append(batch)


def checkpoint(market: Market, disk: MarketDisk, parts: int) -> None:
    commit(market, disk)
    taken = market.checkpoint()
    disk.put(taken, parts)
    if parts > 2:
        market.checkpoint_written(taken)
    else:
        market.checkpoint_failed(taken)


def recover(disk: MarketDisk, term: int, group_symbols: int = GROUP_SYMBOLS) -> Market:
    market = Market(term, group_symbols=group_symbols, seen_max=SEEN_MAX)
    market.restore(state for body in disk.groups.values() for state in decode_states(body))
    market.positions.update(disk.positions)
    market.load_seen(b"".join(batch.event_keys for batch in disk.journal[-1:]))
    market.continue_after(disk.complete_through_batch)
    for batch in disk.journal:
        if batch.number > disk.complete_through_batch:
            market.replay(batch)
    read_late_candles(market, disk)
    market.renumber()
    return market


class CheckpointStep(NamedTuple):
    """A checkpoint, and how much of it reaches the disk."""

    parts: int


class DeliveredQuote(NamedTuple):
    key: bytes
    ticks: tuple[Tick, ...]


def ingest(market: Market, disk: MarketDisk, event: DeliveredQuote) -> None:
    if event.key not in market.seen and event.key in disk.index:  # the look-up in the index
        market.seen.add(event.key)
    if market.seen.add(event.key):
        market.ingest(event.ticks, event_keys=[event.key])


def test_seqs_grow_over_restart() -> None:
    disk = MarketDisk()
    first = Market(1)
    (seq,) = first.ingest([Tick("X", 1.0, 1000)]).seqs
    commit(first, disk)
    first.ingest([Tick("X", 2.0, 2000)])  # never on disk
    second = recover(disk, 2)
    (later,) = second.ingest([Tick("X", 3.0, 3000)]).seqs
    assert later > first.quotes["X"].seq > seq


def test_restart_restores_state() -> None:
    disk = MarketDisk()
    market = Market(1)
    market.ingest([Tick("X", 1.0, 1000, volume=2.0), Tick("X", 2.0, MILLISECONDS_PER_DAY, 1.9, 2.1, 3.0)], digits=4)
    checkpoint(market, disk, parts=3)
    again = recover(disk, 2)
    quote = again.quotes["X"]
    assert quote.seq == first_seq(2)
    quote.seq = market.quotes["X"].seq
    assert quote == market.quotes["X"]
    assert quote.reference == 1.0
    assert again.book.newest("X") == market.book.newest("X")


def test_journaled_event_does_not_count_again_after_crash() -> None:
    disk = MarketDisk()
    market = Market(1)
    event = DeliveredQuote(short_event_key("/s", "1"), (Tick("X", 1.0, 1000, volume=5.0),))
    ingest(market, disk, event)
    commit(market, disk)
    again = recover(disk, 2)
    ingest(again, disk, event)
    assert again.quotes["X"].volume == 5.0


def test_source_position_is_stored_with_ticks() -> None:
    disk = MarketDisk()
    market = Market(1)
    market.ingest([Tick("X", 1.0, 1000)], position=Position("file", 7))
    commit(market, disk)
    market.ingest([Tick("X", 1.0, 2000)], position=Position("file", 8))  # never on disk
    assert recover(disk, 2).positions == {"file": 7}
    checkpoint(market, disk, parts=3)
    assert recover(disk, 2).positions == {"file": 8}


def test_stale_mark_survives_a_restart() -> None:
    disk = MarketDisk()
    market = Market(1)
    market.ingest([Tick("X", 1.0, 1000)])
    seq = market.quotes["X"].seq
    assert market.mark_stale("X").seq == seq + 1
    checkpoint(market, disk, parts=3)
    assert recover(disk, 2).quotes["X"].stale


def test_cut_holds_only_changed_groups() -> None:
    market, disk = Market(1), MarketDisk()
    market.ingest([Tick(f"S{number}", 1.0, 1000) for number in range(GROUP_SYMBOLS + 1)])
    checkpoint(market, disk, parts=3)
    assert set(disk.groups) == {0, 1}
    market.ingest([Tick("S500", 2.0, 2000)])
    market.pop_batch()
    assert set(market.checkpoint().groups) == {1}


def test_cut_is_complete_before_deferred_ticks() -> None:
    market, disk = Market(1), MarketDisk()
    market.ingest([Tick("X", 1.0, 1000), Tick("X", 1.0, MINUTE_MS)])
    checkpoint(market, disk, parts=3)
    through = disk.complete_through_batch
    market.ingest([Tick("X", 9.0, 2000)])
    checkpoint(market, disk, parts=3)
    assert disk.complete_through_batch == through
    read_late_candles(market, disk)
    checkpoint(market, disk, parts=3)
    assert disk.complete_through_batch == through + 1


def test_symbols_are_bounded() -> None:
    market = Market(1, symbols_max=2)
    market.ingest([Tick("A", 1.0, 1000), Tick("B", 1.0, 1000)])
    assert market.has_room_for("A")
    assert not market.has_room_for("C")


ticks = st.builds(
    Tick,
    symbol=st.sampled_from(["A", "B"]),
    price=st.integers(1, 50).map(float),
    at_ms=st.integers(0, 2 * MILLISECONDS_PER_DAY // MINUTE_MS).map(lambda minute: minute * 30_000),
    volume=st.none() | st.integers(0, 9).map(float),
)
operations = st.lists(
    st.lists(ticks, min_size=1, max_size=4)
    | st.sampled_from(["commit", "read", "crash"])
    | st.builds(CheckpointStep, st.integers(0, 3)),
    max_size=60,
)
Operation = list[Tick] | Literal["commit", "read", "crash"] | CheckpointStep


@settings(max_examples=300)
@given(operations, st.integers(1, 2))
def test_every_event_counts_once_despite_crashes(taken: list[Operation], group_symbols: int) -> None:
    disk, term = MarketDisk(), 1
    market = Market(term, group_symbols=group_symbols, seen_max=SEEN_MAX)
    events: list[DeliveredQuote] = []
    times: set[tuple[str, int]] = set()
    last_seqs: dict[str, int] = {}

    def check_seqs() -> None:
        for symbol, quote in market.quotes.items():
            assert quote.seq >= last_seqs.get(symbol, 0)
            assert quote.seq >= first_seq(term)
            last_seqs[symbol] = quote.seq

    def crash() -> Market:
        again = recover(disk, term, group_symbols)
        for event in events:  # the broker redelivers the unacknowledged events, and more
            ingest(again, disk, event)
        return again

    for operation in taken:
        match operation:
            case "commit":
                commit(market, disk)
            case "read":
                read_late_candles(market, disk)
            case "crash":
                term += 1
                market = crash()
            case CheckpointStep(parts):
                checkpoint(market, disk, parts)
            case list():
                fresh = [t for t in operation if (t.symbol, t.at_ms) not in times]
                fresh = list({(t.symbol, t.at_ms): t for t in fresh}.values())
                times.update((t.symbol, t.at_ms) for t in fresh)
                event = DeliveredQuote(short_event_key("/s", str(len(events))), tuple(fresh))
                events.append(event)
                for published in (event, events[len(events) // 2]):  # an older one is published again
                    ingest(market, disk, published)
        check_seqs()
    term += 1
    market = crash()
    read_late_candles(market, disk)
    check_seqs()

    processed = [tick for event in events for tick in event.ticks]
    assert values(all_candles(market.book, disk.candles, "AB")) == by_hand(processed)
    for symbol, quote in market.quotes.items():
        own = [tick for tick in processed if tick.symbol == symbol]
        newest = max(own, key=lambda tick: tick.at_ms)
        today = [t.volume for t in own if t.at_ms // MILLISECONDS_PER_DAY == quote.day and t.volume is not None]
        assert (quote.price, quote.at_ms) == (newest.price, newest.at_ms)
        assert quote.volume == (sum(today) if today else None)
