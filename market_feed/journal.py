"""Persistence of the market: every batch goes to the journal, the state is written by periodic checkpoints.

The journal is the lock of the symbols. Batches are numbered without gaps, and a number is taken once (`_id`). A new
owner reads the journal to its end and claims the next number before it serves. The next write of an earlier owner that
is still alive (thawed, or cut off from the lease) therefore fails: its ticks are not acknowledged, and the broker
redelivers them to the new owner. The interleavings of the two:

    old writes n, new reads n, new claims n + 1       n is valid; the next of old fails
    new reads up to n - 1, old writes n, new claims   the claim fails: new reads n, then claims n + 1
    new claims n, old writes n                        old fails and ends its term; nothing of n was acknowledged
    old took the lease and froze before its claim     it looks for the claim of a later term, finds it and gives up.
                                                      Without that look it would claim the next number and fence off
                                                      the new owner

An event takes effect once in 7 days. Its key is in the journal document of its ticks; a checkpoint adds it to the index
before it moves its position, so a key is in the journal after that position, in the index, or in both. Memory may
forget a key only once it is in the index.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from market_feed import metrics
from market_feed.announcer import Announcer
from market_feed.market import Checkpoint, JournalBatch, Market, split_keys
from market_feed.store import MarketStore
from shared.errors import StaleOwner, Unavailable
from shared.telemetry import logs
from shared.times import MILLISECONDS_PER_DAY
from shared.waiting import is_set_within

log = logs.get(__name__)

FILL_PAUSES = 4
FILL_RETRY_S = 1.0
BACKLOG_HURRY = 20_000  # unwritten candles that cause an early checkpoint


class Journal:
    """Writes one market, with at most one journal write and one checkpoint in flight."""

    def __init__(
        self,
        market: Market,
        store: MarketStore,
        announcer: Announcer,
        owns: Callable[[], bool],
        ended: asyncio.Event,
        clock_ms: Callable[[], int],
    ) -> None:
        self._market = market
        self._store = store
        self._announcer = announcer
        self._owns = owns
        self._clock_ms = clock_ms
        self._ended = ended  # set when a newer owner has written
        self._journal = asyncio.Lock()
        self._checkpointing = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._batch: JournalBatch | None = None  # a batch that is not yet on disk
        self._batch_ticket = 0
        self._committed = 0

    async def recover(self) -> None:
        """Restore the market of the last owner, and fence off that owner.

        Raises Unavailable; then start again with a new market.
        """
        position = await self._store.checkpoint_position()
        self._market.restore(await self._store.states())
        self._market.positions.update(position.source_positions)
        recent = await self._store.recent_keys()
        self._market.load_unindexed(recent.unindexed)
        self._market.load_seen(recent.seen)
        self._market.continue_after(position.complete_through_batch)
        replayed = await self._replay(position.complete_through_batch)
        while not await self._claimed():
            if not self._owns():
                raise Unavailable("ownership of the symbols is in doubt")
            replayed += await self._replay(self._market.claim_batch().number - 1)
        await self.read_late_candles()
        self._market.renumber()
        log.info("recovered", symbols=len(self._market.quotes), ticks_replayed=replayed)

    async def _replay(self, last_batch: int) -> int:
        """Apply the batches after this one, and return the number of their ticks. Raises Unavailable."""
        replayed = 0
        async for batch in self._store.batches_after(last_batch):
            if batch.term > self._market.term:
                self._ended.set()
                raise Unavailable("another process owns the symbols")
            self._market.replay(batch)
            self._announcer.announce(batch.ticks, batch.seqs)
            replayed += len(batch.ticks)
        return replayed

    async def _claimed(self) -> bool:
        """Claim the next number of the journal. Return False if an earlier owner has taken it. Raises Unavailable."""
        claim = self._market.claim_batch()
        try:
            await self._store.append(claim)
        except StaleOwner:
            return False
        self._market.continue_after(claim.number)
        return True

    async def commit(self) -> None:
        """Return once every tick applied to the market is in the journal. Raises Unavailable; nothing is lost.

        Callers that arrive during a write share the next one.
        """
        ticket = self._market.ingest_calls
        async with self._journal:
            while self._committed < ticket:
                self._pop_batch()
                await self._append()

    async def checkpoint(self) -> None:
        """Write the changes since the last checkpoint. Raises Unavailable."""
        await self.read_late_candles()
        async with self._checkpointing:
            async with self._journal:
                await self._append()
                self._pop_batch()
                checkpoint = self._market.checkpoint()
                with self._undoing(checkpoint):
                    await self._append()
            started_s = time.perf_counter()
            with self._undoing(checkpoint):
                await self._announcer.confirmed()
                await self._put(checkpoint)
            self._note_processed(checkpoint)
            self._market.checkpoint_written(checkpoint)
            metrics.CHECKPOINT_SECONDS.observe(time.perf_counter() - started_s)

    @contextmanager
    def _undoing(self, checkpoint: Checkpoint) -> Iterator[None]:
        """Give the changes of a checkpoint back to the market if the block fails: the next checkpoint takes them."""
        try:
            yield
        except BaseException:
            self._market.checkpoint_failed(checkpoint)
            raise

    async def _put(self, checkpoint: Checkpoint) -> None:
        if checkpoint.groups or checkpoint.candles or checkpoint.event_keys:
            with self._ending_if_stale():
                await self._store.put_checkpoint(checkpoint)

    async def look_up(self, event_keys: Collection[bytes]) -> None:
        """Mark the events that are in the index as seen. Raises Unavailable.

        During the read another batch may process one of them, which marks it as seen. If it was also indexed and
        evicted from the window meanwhile, the read may have missed it; then this reads again.
        """
        seen, processed = self._market.seen, self._market.processed
        while doubtful := [key for key in event_keys if key not in seen and processed.may_hold(key)]:
            added = seen.added
            metrics.EVENTS_LOOKED_UP.inc(len(doubtful))
            found = await self._store.processed(doubtful)
            if seen.last_forgotten_number <= added:
                seen.load(found)
                return

    async def keep_up(self) -> None:
        """Commit, and write a checkpoint if many candles are pending. Paces a source that can wait.

        Raises Unavailable.
        """
        await self.commit()
        if self._market.book.backlog > BACKLOG_HURRY:
            await self.checkpoint()

    async def read_late_candles(self) -> None:
        """Read the candles that late ticks wait for. Raises Unavailable."""
        async with self._reading:
            while missing := self._market.book.missing():
                self._market.book.apply_deferred(missing, await self._store.candles_by_key(missing))

    async def run(self, commit_interval_s: float, checkpoint_interval_s: float) -> None:
        """Commit and write checkpoints at these intervals, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._commit_often(commit_interval_s))
            tasks.create_task(self._checkpoint_often(checkpoint_interval_s))
            tasks.create_task(self._fill_filter())

    def check_backlog(self) -> None:
        """Request an early checkpoint if many candles are pending."""
        backlog = self._market.book.backlog
        metrics.BACKLOG.set(backlog)
        metrics.PENDING_TICKS.set(self._market.pending)
        if backlog > BACKLOG_HURRY:
            self._hurry.set()

    def _note_processed(self, checkpoint: Checkpoint) -> None:
        day = self._clock_ms() // MILLISECONDS_PER_DAY
        self._market.processed.add_all(split_keys(checkpoint.event_keys), day)

    async def _fill_filter(self) -> None:
        """Read the index into the filter, using a fifth of a core. Until then every event is looked up on disk.

        Checkpoints meanwhile add their keys to the filter themselves. A million keys take 2 s of CPU, hence 10 s.
        """
        processed = self._market.processed
        while not processed.is_complete:
            try:
                async for day, keys in self._store.index():
                    started_s = time.perf_counter()
                    processed.add_all(keys, day)
                    await asyncio.sleep(FILL_PAUSES * (time.perf_counter() - started_s))
                processed.is_complete = True
            except Unavailable as error:
                log.warning("index_not_read", reason=str(error), retry_in_s=FILL_RETRY_S)
                await asyncio.sleep(FILL_RETRY_S)

    async def _commit_often(self, interval_s: float) -> None:
        failing = False
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.commit()
                failing = False
            except Unavailable as error:
                if not failing:
                    log.warning("journal_delayed", reason=str(error), ticks=self._market.pending)
                failing = True

    async def _checkpoint_often(self, interval_s: float) -> None:
        while True:
            await is_set_within(self._hurry, interval_s)
            self._hurry.clear()
            try:
                await self.checkpoint()
            except Unavailable as error:
                log.warning("checkpoint_delayed", reason=str(error), candles=self._market.book.backlog)
                await asyncio.sleep(min(interval_s, 1.0))

    def _pop_batch(self) -> None:
        if self._batch is None:
            self._batch, self._batch_ticket = self._market.pop_batch(), self._market.ingest_calls

    async def _append(self) -> None:
        if self._batch is not None:
            started_s = time.perf_counter()
            with self._ending_if_stale():
                await self._store.append(self._batch)
            # After a long freeze the newer owner's entry of this number may have expired, and the append succeeds.
            if not self._owns():
                raise Unavailable("ownership of the symbols is in doubt")
            metrics.COMMIT_SECONDS.observe(time.perf_counter() - started_s)
        self._batch = None
        self._committed = max(self._committed, self._batch_ticket)

    @contextmanager
    def _ending_if_stale(self) -> Iterator[None]:
        """End the term if a newer owner has written; then raise Unavailable, so that the ticks are redelivered."""
        try:
            yield
        except StaleOwner as error:
            if not self._ended.is_set():
                log.warning("superseded", reason=str(error))
            self._ended.set()
            raise Unavailable("another process owns the symbols") from error
