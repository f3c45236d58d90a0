"""History for resuming clients: single-flight reads in blocks.

When a gateway dies, every client of a room reconnects with nearly the same position. History is read in blocks of
positions (the seqs of messages, or the revs of entries), each of them once: readers share a block for one second from
the start of its read, or until the read ends if that takes longer. An edit or a deletion changes history, so readers
share only what was read after the last change that they know of (`changed_rev`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from shared.commands.command import REPLAY_MAX, REPLAY_MAX_BYTES
from shared.errors import RealtimeError

BLOCK = 100  # messages of at most 64 KB: under 8 MB, the largest answer of a service
CONCURRENT_READS_MAX = 4
KEPT_S = 1.0  # deleted text may stay in memory no longer
KEPT_MAX_BYTES = 32 * 1024 * 1024


class Span(NamedTuple):
    """The items with `after` < position ≤ `through` of block `number`."""

    number: int
    after: int
    through: int


def spans(after: int, through: int) -> list[Span]:
    """Return the parts of blocks with `after` < position ≤ `through`. Block n has positions n·100+1 … n·100+100."""
    first, last = after // BLOCK, (through - 1) // BLOCK
    return [
        Span(number, max(after, number * BLOCK), min(through, (number + 1) * BLOCK))
        for number in range(first, last + 1)
    ]


class Replayed(NamedTuple):
    """An item as complete WebSocket frames, and its place in the log of its room. No frame: clients do not see it."""

    rev: int
    frames: tuple[bytes, ...]


Fetch = Callable[[str, int, int], Awaitable[list[Replayed]]]


class _Key(NamedTuple):
    """A block of a room's history, read after the change `changed_rev`."""

    room_id: str
    changed_rev: int
    number: int


class _Block:
    """A block whose read is in flight or completed."""

    def __init__(self, reading: "asyncio.Future[list[Replayed]]", now_s: float) -> None:
        self.reading = reading
        self.begun_at_s = now_s
        self.size_bytes = 0
        self.end: asyncio.TimerHandle | None = None


class Replays:
    """The reads of one gateway. Blocks are kept for 1 s; beyond 32 MB the oldest are evicted."""

    def __init__(self, fetch: Fetch, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._fetch = fetch
        self._spawn = spawn
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()  # oldest first
        self.kept_bytes = 0

    async def read(self, room_id: str, after: int, through: int, changed_rev: int) -> list[Replayed]:
        """Return the items with `after` < position ≤ `through`.

        They are read after the change `changed_rev`, the last one that the caller knows of. The result ends early at a
        missing item, and before the block that would bring it above 1,000 items with frames, or 8 MB. Raises
        Unavailable or Refusal.
        """
        items: list[Replayed] = []
        shown = size_bytes = 0
        wanted = spans(after, through)
        for first in range(0, len(wanted), CONCURRENT_READS_MAX):
            group = wanted[first : first + CONCURRENT_READS_MAX]
            parts = await asyncio.gather(*(self._read_span(room_id, changed_rev, span) for span in group))
            for span, part in zip(group, parts, strict=True):
                shown += sum(bool(item.frames) for item in part)
                size_bytes += size_of(part)
                if shown > REPLAY_MAX or size_bytes > REPLAY_MAX_BYTES:
                    return items
                items += part
                if len(part) < span.through - span.after:
                    return items
        return items

    async def _read_span(self, room_id: str, changed_rev: int, span: Span) -> list[Replayed]:
        key = _Key(room_id, changed_rev, span.number)
        first, last = span.after - span.number * BLOCK, span.through - span.number * BLOCK
        block = self._blocks.get(key)
        if block is not None:
            items = await asyncio.shield(block.reading)
            if len(items) >= last:
                return items[first:last]
            self._forget(key, block)  # the room had fewer messages when the block was read
        block = self._blocks.get(key) or self._begin(key)
        return (await asyncio.shield(block.reading))[first:last]

    def _begin(self, key: _Key) -> _Block:
        loop = asyncio.get_running_loop()
        block = self._blocks[key] = _Block(loop.create_future(), loop.time())
        self._spawn(self._fill(key, block))
        return block

    async def _fill(self, key: _Key, block: _Block) -> None:
        room_id, _, number = key
        try:
            items = await self._fetch(room_id, number * BLOCK, (number + 1) * BLOCK)
        except RealtimeError as error:
            self._blocks.pop(key, None)
            block.reading.set_exception(error)
            block.reading.exception()  # mark the exception retrieved: all readers may have been cancelled
            return
        except BaseException:
            self._blocks.pop(key, None)
            block.reading.cancel()
            raise
        block.reading.set_result(items)
        self._keep(key, block, size_of(items))

    def _keep(self, key: _Key, block: _Block, size_bytes: int) -> None:
        """Keep a completed block until it is 1 s old, and evict the oldest ones beyond 32 MB."""
        block.size_bytes = size_bytes
        self.kept_bytes += size_bytes
        block.end = asyncio.get_running_loop().call_at(block.begun_at_s + KEPT_S, self._forget, key, block)
        for oldest_key, oldest in list(self._blocks.items()):
            if self.kept_bytes <= KEPT_MAX_BYTES:
                return
            if oldest.reading.done():
                self._forget(oldest_key, oldest)

    def _forget(self, key: _Key, block: _Block) -> None:
        """Forget a completed block, unless it was forgotten before."""
        if self._blocks.get(key) is block:
            del self._blocks[key]
            self.kept_bytes -= block.size_bytes
            if block.end is not None:
                block.end.cancel()  # it refers to the block


def size_of(items: list[Replayed]) -> int:
    """Return the total size of the items' frames."""
    return sum(len(frame) for item in items for frame in item.frames)
