"""The whole state of the service in memory, and the order in which it is written. Pure.

Ticks are in the journal before they are acknowledged: `pop_batch` numbers the ticks since the last batch, and a batch
is one document. All other state follows from the journal and is written only every few seconds, by a checkpoint:
`checkpoint` returns the changes since the last one, and the batch through which they are complete. After a crash,
`restore` loads the last checkpoint and `replay` the batches after it. Those batches may repeat ticks that the
checkpoint already contains: quotes and candles keep the seq of their last tick and skip the repeats.

Batch numbers continue across terms, so a stale owner's batch finds its number taken. A new owner claims the first free
number before it serves.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from market_feed.candles import Candle, CandleBook, KeyedCandle
from market_feed.dedup import ProcessedFilter, SeenWindow
from market_feed.quotes import Quote, Tick, advance, first_quote, first_seq
from shared.bus.events import SHORT_KEY_BYTES
from shared.commands.market import Interval

SEEN_EVENTS_MAX = 200_000
SYMBOLS_MAX = 10_000
GROUP_SYMBOLS = 500


class Source(NamedTuple):
    """A source's name, and the time without a tick after which its prices are stale."""

    name: str
    stale_s: float


class Position(msgspec.Struct, frozen=True):
    """The position in a source that can be re-read: the number of the last tick read."""

    source: str
    number: int


class Ingested(msgspec.Struct, frozen=True):
    """The result of applying ticks: their seqs, the quotes with a new price by symbol, the number of late ticks."""

    seqs: list[int]
    moved: dict[str, Quote]
    late: int


class JournalBatch(msgspec.Struct, frozen=True):
    """The ticks of one journal document with their seqs, and the 8-byte keys of their events."""

    number: int
    term: int
    ticks: list[Tick]
    seqs: list[int]
    event_keys: bytes = b""
    positions: dict[str, int] = {}


class SymbolState(msgspec.Struct, frozen=True):
    """The state of a symbol: its quote, and the newest candle of each interval."""

    quote: Quote
    candles: dict[Interval, Candle]


class Checkpoint(msgspec.Struct, frozen=True):
    """The changes since the last checkpoint, complete through `complete_through_batch`.

    `groups` are encoded symbols by group number: a whole group if one of its symbols changed. `event_keys` holds the
    8-byte keys of the events since the last checkpoint, all in the journal through `last_batch`. Keys are numbered in
    the order in which they entered the window; `newest_key_number` is the number of the newest of them.
    """

    last_batch: int
    complete_through_batch: int
    groups: dict[int, bytes]
    candles: list[KeyedCandle]
    positions: dict[str, int]
    event_keys: bytes
    newest_key_number: int


_states_encoder = msgspec.msgpack.Encoder()
_states_decoder = msgspec.msgpack.Decoder(list[SymbolState])


def split_keys(event_keys: bytes) -> Iterator[bytes]:
    """Yield the 8-byte keys of events."""
    for start in range(0, len(event_keys), SHORT_KEY_BYTES):
        yield event_keys[start : start + SHORT_KEY_BYTES]


def decode_states(body: bytes) -> list[SymbolState]:
    """Return the symbols of a group of a checkpoint."""
    return _states_decoder.decode(body)


class Market:
    """Quotes, candles and the pending journal of one term of ownership.

    The feed bounds both backlogs: `pending` ticks wait for the journal, `book.backlog` for the database.
    """

    def __init__(
        self,
        term: int,
        *,
        symbols_max: int = SYMBOLS_MAX,
        group_symbols: int = GROUP_SYMBOLS,
        seen_max: int = SEEN_EVENTS_MAX,
    ) -> None:
        self.quotes: dict[str, Quote] = {}
        self.book = CandleBook()
        self.seen = SeenWindow(seen_max)
        self.processed = ProcessedFilter()
        self.positions: dict[str, int] = {}
        self.ingest_calls = 0  # counts `ingest` calls; a commit waits until the calls counted so far are in the journal
        self._symbols_max = symbols_max
        self._group_symbols = group_symbols
        self.term = term
        self._first_seq = first_seq(term)
        self._next_batch = 1
        self._ticks: list[Tick] = []
        self._seqs: list[int] = []
        self._event_keys: list[bytes] = []
        self._unindexed: list[bytes] = []  # keys of processed events that are not in the index yet
        self._moved_positions: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # of symbols, in order of arrival; they determine the groups
        self._members: dict[int, list[str]] = {}
        self._changed: set[int] = set()
        self._deferred_since: int | None = None  # the batch of the oldest tick that waits for its candle

    @property
    def pending(self) -> int:
        """Return the number of ticks that wait for a batch."""
        return len(self._ticks)

    def has_room_for(self, symbol: str) -> bool:
        """Return whether the symbol is known or may be added. The limit keeps garbage from filling memory."""
        return symbol in self.quotes or len(self.quotes) < self._symbols_max

    # Ticks ----------------------------------------------------------------------------------------------------------

    def ingest(
        self,
        ticks: Sequence[Tick],
        *,
        event_keys: Sequence[bytes] = (),
        feed_keys: Sequence[bytes] = (),
        position: Position | None = None,
        digits: int = 0,
    ) -> Ingested:
        """Apply ticks in order. A new symbol shows at least `digits` decimal places.

        `event_keys` are remembered for 7 days; `feed_keys`, the ids of an upstream feed's ticks, only until newer ones
        displace them.
        """
        late = 0
        seqs: list[int] = []
        moved: dict[str, Quote] = {}
        quotes, apply, least_seq = self.quotes, self.book.apply, self._first_seq
        for tick in ticks:
            symbol = tick.symbol
            quote = quotes.get(symbol)
            if quote is None:
                seq = least_seq
                moved[symbol] = self._begin(first_quote(tick, seq, digits))
            else:
                seq = quote.seq + 1 if quote.seq >= least_seq else least_seq
                if advance(quote, tick, seq):
                    moved[symbol] = quote
                else:
                    late += 1
            apply(tick, seq)
            seqs.append(seq)
        self._note(ticks, seqs)
        self.seen.load(event_keys)
        self.seen.load(feed_keys)
        self._event_keys.extend(event_keys)
        self._event_keys.extend(feed_keys)
        self._unindexed.extend(event_keys)
        if position is not None:
            self.positions[position.source] = self._moved_positions[position.source] = position.number
        self.ingest_calls += 1
        return Ingested(seqs, moved, late)

    def mark_stale(self, symbol: str) -> Quote:
        """Mark the price as stale: its source has fallen silent."""
        quote = self.quotes[symbol]
        quote.stale = True
        quote.seq = max(quote.seq + 1, self._first_seq)
        self._changed.add(self._group_of(symbol))
        return quote

    def _begin(self, quote: Quote) -> Quote:
        self.quotes[quote.symbol] = quote
        number = self._numbers[quote.symbol] = len(self._numbers)
        self._members.setdefault(number // self._group_symbols, []).append(quote.symbol)
        return quote

    def _group_of(self, symbol: str) -> int:
        return self._numbers[symbol] // self._group_symbols

    def _note(self, ticks: Sequence[Tick], seqs: list[int]) -> None:
        self._ticks.extend(ticks)
        self._seqs.extend(seqs)
        self._changed.update({self._group_of(tick.symbol) for tick in ticks})
        if self._deferred_since is None and self.book.has_deferred:
            self._deferred_since = self._next_batch

    # Journal --------------------------------------------------------------------------------------------------------

    def pop_batch(self) -> JournalBatch | None:
        """Return the ticks and keys since the last batch, or None. Batches must be written in order."""
        if not self._ticks and not self._event_keys and not self._moved_positions:
            return None
        keys = b"".join(self._event_keys)
        batch = JournalBatch(self._next_batch, self.term, self._ticks, self._seqs, keys, self._moved_positions)
        self._next_batch += 1
        self._ticks, self._seqs, self._event_keys, self._moved_positions = [], [], [], {}
        return batch

    def continue_after(self, number: int) -> None:
        """Assign a number after this one, which is on disk, to the next batch."""
        self._next_batch = max(self._next_batch, number + 1)

    def claim_batch(self) -> JournalBatch:
        """Return an empty batch with the next number, which fences off earlier owners."""
        return JournalBatch(self._next_batch, self.term, [], [])

    def replay(self, batch: JournalBatch) -> None:
        """Apply a batch from the journal. Idempotent."""
        self.continue_after(batch.number)
        for tick, seq in zip(batch.ticks, batch.seqs, strict=True):
            quote = self.quotes.get(tick.symbol)
            if quote is None:
                self._begin(first_quote(tick, seq))
            elif seq > quote.seq and advance(quote, tick, seq):
                quote.stale = False
            self.book.apply(tick, seq)
            self._changed.add(self._group_of(tick.symbol))
        self.load_seen(batch.event_keys)
        self._unindexed.extend(split_keys(batch.event_keys))  # including keys of feeds
        for source, number in batch.positions.items():
            self.positions[source] = max(number, self.positions.get(source, 0))
        if self._deferred_since is None and self.book.has_deferred:
            self._deferred_since = batch.number

    def load_unindexed(self, event_keys: bytes) -> None:
        """Load events that were processed by a release without an index."""
        self.load_seen(event_keys)
        self._unindexed.extend(split_keys(event_keys))

    def load_seen(self, event_keys: bytes) -> None:
        """Mark events as seen; 8-byte keys, oldest first."""
        self.seen.load(split_keys(event_keys))

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Return the changes since the last checkpoint.

        The checkpoint is complete through the last batch, or, while ticks wait for candles, through the last batch
        before theirs. Call `pop_batch` first, without an `await` in between, and `checkpoint_written` or
        `checkpoint_failed` before the next checkpoint.
        """
        if not self.book.has_deferred:
            self._deferred_since = None
        last = self._next_batch - 1
        complete_through = last if self._deferred_since is None else self._deferred_since - 1
        groups = {group: self._encode_group(group) for group in self._changed}
        self._changed = set()
        keys, self._unindexed = b"".join(self._unindexed), []
        positions = dict(self.positions)
        return Checkpoint(last, complete_through, groups, self.book.take_unwritten(), positions, keys, self.seen.added)

    def checkpoint_written(self, checkpoint: Checkpoint) -> None:
        """Drop the changes of the checkpoint, because it is on disk."""
        self.book.written()
        self.seen.may_forget(checkpoint.newest_key_number)

    def checkpoint_failed(self, checkpoint: Checkpoint) -> None:
        """Keep the changes of the checkpoint for the next one, because it is not completely on disk."""
        self.book.write_failed()
        self._changed.update(checkpoint.groups)
        self._unindexed[:0] = split_keys(checkpoint.event_keys)

    def restore(self, states: Iterable[SymbolState]) -> None:
        """Continue from a checkpoint. If a symbol is in several groups, the state with the highest seq wins."""
        newest: dict[str, SymbolState] = {}
        for state in states:
            other = newest.get(state.quote.symbol)
            if other is None or state.quote.seq > other.quote.seq:
                newest[state.quote.symbol] = state
        for symbol, state in newest.items():
            self._begin(state.quote)
            self.book.restore(symbol, state.candles)

    def renumber(self) -> None:
        """Give every quote a seq of this term.

        Prices that the dead owner delivered from ticks not yet on disk are lost; the current prices must sort after
        them.
        """
        for quote in self.quotes.values():
            quote.seq = max(quote.seq, self._first_seq)

    def _encode_group(self, number: int) -> bytes:
        return _states_encoder.encode(
            [SymbolState(self.quotes[symbol], self.book.newest(symbol)) for symbol in self._members[number]]
        )
