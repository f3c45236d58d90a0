"""Reads of history shared by clients that resume at the same time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout import replays
from gateway.fanout.replays import BLOCK, KEPT_MAX_BYTES, Replayed, Replays, spans
from gateway.fanout.wire import text_frame
from shared.commands.command import REPLAY_MAX, REPLAY_MAX_BYTES
from shared.errors import Unavailable
from tests.support.waiting import until


def frame_of(seq: int) -> bytes:
    return b'{"seq":%d}' % seq


class History:
    """A room with `length` messages; counts the reads and lets the test hold them back."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.reads: list[tuple[str, int, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.padding = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self.replays = Replays(self._fetch, self._spawn)

    async def _fetch(self, room_id: str, after: int, through: int) -> list[Replayed]:
        self.reads.append((room_id, after, through))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        seqs = range(after + 1, min(through, self.length) + 1)
        return [Replayed(2 * seq, self.frames_of(seq)) for seq in seqs]

    def frames_of(self, seq: int) -> tuple[bytes, ...]:
        return (text_frame(frame_of(seq) + self.padding),)

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def read(self, after: int, through: int) -> list[bytes]:
        read = await self.replays.read("r", after, through, 0)
        assert [item.rev for item in read] == [2 * seq for seq in range(after + 1, after + 1 + len(read))]
        return [frame for item in read for frame in item.frames]


@given(st.integers(0, 10**6), st.integers(1, 1000))
def test_spans_cover_each_message_once(after: int, missed: int) -> None:
    found = spans(after, after + missed)
    assert [seq for span in found for seq in range(span.after, span.through)] == list(range(after, after + missed))
    for span in found:
        assert span.number * BLOCK <= span.after < span.through <= (span.number + 1) * BLOCK


async def test_concurrent_readers_share_reads() -> None:
    history = History(length=210)
    history.open.clear()
    asked = [(number % 170, 205 + number % 6) for number in range(1000)]
    reading = [asyncio.create_task(history.read(after, through)) for after, through in asked]
    await asyncio.sleep(0)
    history.open.set()
    for (after, through), frames in zip(asked, await asyncio.gather(*reading), strict=True):
        assert frames == [text_frame(frame_of(seq)) for seq in range(after + 1, through + 1)]
    assert len(history.reads) == 3  # one for each block


async def test_messages_after_a_read_are_read_again() -> None:
    history = History(length=120)
    assert len(await history.read(100, 120)) == 20
    history.length = 125
    assert await history.read(118, 125) == [text_frame(frame_of(seq)) for seq in range(119, 126)]
    assert len(history.reads) == 2


async def test_cancelled_reader_does_not_cancel_a_shared_read() -> None:
    history = History(length=10)
    history.open.clear()
    leaving, staying = (asyncio.create_task(history.read(0, 10)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    history.open.set()
    assert len(await staying) == 10
    assert len(history.reads) == 1


async def test_failed_read_fails_its_readers_and_is_not_kept() -> None:
    history = History(length=10)
    history.error = Unavailable("away")
    for result in await asyncio.gather(*(history.read(0, 10) for _ in range(5)), return_exceptions=True):
        assert isinstance(result, Unavailable)
    history.error = None
    assert len(await history.read(0, 10)) == 10
    assert len(history.reads) == 2


async def test_missing_tail_returns_fewer_frames() -> None:
    assert len(await History(length=70).read(40, 80)) == 30
    assert len(await History(length=30).read(40, 80)) == 0


async def test_read_over_8_mb_returns_fewer_frames() -> None:
    history = History(length=1000)
    history.padding = b"x" * 60_000
    frames = await history.read(0, 1000)
    assert 0 < len(frames) < 1000
    assert sum(map(len, frames)) <= REPLAY_MAX_BYTES


@pytest.mark.parametrize("shown", [REPLAY_MAX, REPLAY_MAX + 1])
async def test_only_items_for_clients_count_towards_the_bound(shown: int) -> None:
    class WithVoids(History):
        def frames_of(self, seq: int) -> tuple[bytes, ...]:
            return () if seq <= 1500 else super().frames_of(seq)

    length = 1500 + shown
    history = WithVoids(length)
    read = await history.replays.read("r", 0, length, 0)
    assert (len(read) == length) is (shown <= REPLAY_MAX)


async def test_kept_blocks_are_bounded() -> None:
    history = History(length=10_000)
    history.padding = b"x" * 60_000
    for number in range(20):
        await history.read(number * BLOCK, (number + 1) * BLOCK)
    assert history.replays.kept_bytes <= KEPT_MAX_BYTES + 60_100 * BLOCK


async def test_idle_gateway_forgets_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "KEPT_S", 0.001)
    history = History(length=10)
    await history.read(0, 10)
    await until(lambda: history.replays.kept_bytes == 0, timeout_s=1)
    await history.read(0, 10)
    assert len(history.reads) == 2


async def test_readers_that_know_of_a_change_read_again() -> None:
    history = History(length=10)
    for changed_rev in (0, 7, 7):
        await history.replays.read("r", 0, 10, changed_rev)
    assert len(history.reads) == 2


async def test_rooms_are_read_separately() -> None:
    history = History(length=10)
    for room in (rooms := ["a", "b"]):
        await history.replays.read(room, 0, 10, 0)
    assert [room for room, _, _ in history.reads] == rooms
