"""The whole state of the service in memory, and what of it has to be written when. Pure.

Ticks are journalled before they are acknowledged: `take_batch` numbers what came since the last batch, and the batch is
one document. Everything else follows from the journal, so it is written seldom: `cut` hands out what changed since the
last cut, together with the batch up to which it is complete. After a crash, `restore` takes the last cut back and
`replay` the batches behind it; both may repeat, because quotes and candles know the seq of the last tick they count.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from market_feed.candles import Candle, CandleBook, Kept
from market_feed.dedup import SeenWindow
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
    """How far a source that can be read again has been read: through this tick."""

    source: str
    number: int


class Ingested(msgspec.Struct, frozen=True):
    """What came of ticks: their seqs, the quotes whose price is a new one by symbol, and how many came late."""

    seqs: list[int]
    moved: dict[str, Quote]
    late: int


class JournalBatch(msgspec.Struct, frozen=True):
    """The ticks of one journal document, with their seqs; the keys of the events that brought them, 8 bytes each."""

    number: int
    ticks: list[Tick]
    seqs: list[int]
    event_keys: bytes = b""
    positions: dict[str, int] = {}


class SymbolState(msgspec.Struct, frozen=True):
    """What is known of a symbol: its quote, and of each interval the newest candle."""

    quote: Quote
    candles: dict[Interval, Candle]


class Cut(msgspec.Struct, frozen=True):
    """What changed since the last cut. It holds everything through batch `through`, and nothing behind what is taken.

    `groups` are symbols as encoded by `encode_states`, by their number: all of a group, if one of it changed.
    """

    through: int
    groups: dict[int, bytes]
    candles: list[Kept]
    positions: dict[str, int]


_states_encoder = msgspec.msgpack.Encoder()
_states_decoder = msgspec.msgpack.Decoder(list[SymbolState])


def decode_states(body: bytes) -> list[SymbolState]:
    """The symbols of a group of a cut."""
    return _states_decoder.decode(body)


class Market:
    """Quotes, candles and the journal that is to be written, for one term of ownership.

    What waits is bounded by those who feed it: `pending` ticks for the journal, `book.backlog` for the database.
    """

    def __init__(self, term: int, *, symbols_max: int = SYMBOLS_MAX, group_symbols: int = GROUP_SYMBOLS) -> None:
        self.quotes: dict[str, Quote] = {}
        self.book = CandleBook()
        self.seen = SeenWindow(SEEN_EVENTS_MAX)
        self.positions: dict[str, int] = {}
        self.taken = 0  # ticks and events so far; what a commit waits for
        self._symbols_max = symbols_max
        self._group_symbols = group_symbols
        self._first_seq = first_seq(term)
        self._next_batch = first_seq(term)
        self._ticks: list[Tick] = []
        self._seqs: list[int] = []
        self._event_keys: list[bytes] = []
        self._moved_positions: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # of symbols, in the order of their coming: they make the groups
        self._members: dict[int, list[str]] = {}
        self._changed: set[int] = set()
        self._deferred_since: int | None = None  # the batch of the oldest tick whose candle is not read back yet

    @property
    def pending(self) -> int:
        """How many ticks wait for a batch."""
        return len(self._ticks)

    def has_room_for(self, symbol: str) -> bool:
        """Whether the symbol is known or may become so: garbage must not fill the memory with names."""
        return symbol in self.quotes or len(self.quotes) < self._symbols_max

    # Ticks ----------------------------------------------------------------------------------------------------------

    def take(
        self,
        ticks: Sequence[Tick],
        *,
        event_keys: Iterable[bytes] = (),
        position: Position | None = None,
        digits: int = 0,
    ) -> Ingested:
        """Count ticks, in order. `digits` are the least that prices of a symbol new to us are shown with."""
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
        self._event_keys.extend(event_keys)
        if position is not None:
            self.positions[position.source] = self._moved_positions[position.source] = position.number
        self.taken += 1
        return Ingested(seqs, moved, late)

    def mark_stale(self, symbol: str) -> Quote:
        """Note that the symbol's source has fallen silent."""
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

    def take_batch(self) -> JournalBatch | None:
        """What came since the last batch; None when nothing did. It has to be written, in the order of the numbers."""
        if not self._ticks and not self._event_keys and not self._moved_positions:
            return None
        batch = JournalBatch(
            self._next_batch, self._ticks, self._seqs, b"".join(self._event_keys), self._moved_positions
        )
        self._next_batch += 1
        self._ticks, self._seqs, self._event_keys, self._moved_positions = [], [], [], {}
        return batch

    def replay(self, batch: JournalBatch) -> None:
        """Count a batch that was journalled before. Can be done again."""
        for tick, seq in zip(batch.ticks, batch.seqs, strict=True):
            quote = self.quotes.get(tick.symbol)
            if quote is None:
                self._begin(first_quote(tick, seq))
            elif seq > quote.seq and advance(quote, tick, seq):
                quote.stale = False
            self.book.apply(tick, seq)
            self._changed.add(self._group_of(tick.symbol))
        self.load_seen(batch.event_keys)
        for source, number in batch.positions.items():
            self.positions[source] = max(number, self.positions.get(source, 0))
        if self._deferred_since is None and self.book.has_deferred:
            self._deferred_since = batch.number

    def load_seen(self, event_keys: bytes) -> None:
        """Note events as seen, oldest first; 8 bytes each."""
        for start in range(0, len(event_keys), SHORT_KEY_BYTES):
            self.seen.add(event_keys[start : start + SHORT_KEY_BYTES])

    # Cuts -----------------------------------------------------------------------------------------------------------

    def cut(self) -> Cut:
        """What changed since the last cut, complete through the last batch that was taken; or, while ticks wait for
        their candles to be read back, through the last batch before theirs.

        `cut_kept` or `cut_lost` must follow before the next. Take a batch first, in the same turn.
        """
        if not self.book.has_deferred:
            self._deferred_since = None
        through = (self._deferred_since or self._next_batch) - 1
        groups = {number: self._encode_group(number) for number in self._changed}
        self._changed = set()
        return Cut(through, groups, self.book.take_unwritten(), dict(self.positions))

    def cut_kept(self) -> None:
        """The cut is on disk."""
        self.book.written()

    def cut_lost(self, cut: Cut) -> None:
        """The cut is not on disk, or in part: it will be part of the next."""
        self.book.not_written()
        self._changed.update(cut.groups)

    def restore(self, states: Iterable[SymbolState]) -> None:
        """Go on from a cut. Of a symbol that stands in several groups, the one with the higher seq counts."""
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

        Ticks that were delivered but not on disk when their owner died are gone; what is known now comes after them.
        """
        for quote in self.quotes.values():
            quote.seq = max(quote.seq, self._first_seq)

    def _encode_group(self, number: int) -> bytes:
        return _states_encoder.encode(
            [SymbolState(self.quotes[symbol], self.book.newest(symbol)) for symbol in self._members[number]]
        )
