"""The queue of one consumer of log entries."""

from chat_service.follower.backlog import EntrySpan
from chat_service.follower.consumer_queue import SPAN_MAX, ConsumerQueue
from tests.bench.plans import an_entry

ROOM, OTHER = "room_1", "room_2"


def ready(_: str) -> bool:
    return True


def span(after: int, through: int, *wanted: int, room: str = ROOM, since_ms: int = 1) -> EntrySpan:
    return EntrySpan(room, after, through, since_ms, [an_entry(room, rev) for rev in wanted])


def unread(after: int, through: int, room: str = ROOM) -> EntrySpan:
    return EntrySpan(room, after, through, 1, None)


def queue_of(*spans: EntrySpan, size: int = 1_000) -> ConsumerQueue:
    queue = ConsumerQueue(size)
    for one in spans:
        queue.put(one, one.since_ms)
    return queue


def taken(queue: ConsumerQueue) -> list[tuple[str, int, list[int] | None, int]]:
    """Return room, start, revs in memory, and end of the next spans."""
    return [
        (one.room_id, one.after, None if one.entries is None else [entry.rev for entry in one.entries], one.through)
        for one in queue.take(ready)
    ]


def test_wanted_entries_of_consecutive_spans_are_taken_together() -> None:
    assert taken(queue_of(span(0, 9, 2, 7), span(9, 12), span(12, 20, 13))) == [(ROOM, 0, [2, 7, 13], 20)]


def test_entries_stay_until_they_are_done() -> None:
    queue = queue_of(span(0, 9, 2, 7))
    queue.done(ROOM, 6)
    assert taken(queue) == [(ROOM, 6, [7], 9)]
    queue.done(ROOM, 9)
    assert queue.is_empty and len(queue) == 0


def test_full_queue_leaves_the_room_to_the_log() -> None:
    queue = queue_of(span(0, 2, 1, 2), span(2, 4, 3, 4), span(0, 1, 1, room=OTHER), size=3)
    assert len(queue) == 1
    assert taken(queue) == [(ROOM, 0, None, 4), (OTHER, 0, [1], 1)]


def test_room_that_reads_the_log_comes_back_to_memory_once_it_has_caught_up() -> None:
    queue = queue_of(unread(0, 4), span(4, 5, 5))
    assert taken(queue) == [(ROOM, 0, None, 5)]
    queue.done(ROOM, 5)
    queue.put(span(5, 6, 6), 1)
    assert taken(queue) == [(ROOM, 5, [6], 6)]


def test_earlier_start_is_read_from_the_log() -> None:
    assert taken(queue_of(span(4, 5, 5), unread(2, 5))) == [(ROOM, 2, None, 5)]


def test_batch_is_bounded_in_memory() -> None:
    queue = queue_of(span(0, SPAN_MAX + 2, *range(1, SPAN_MAX + 3)))
    queue.put(span(0, 1, 1, room=OTHER), 1)
    assert [(one[0], one[3]) for one in taken(queue)] == [(ROOM, SPAN_MAX)]
    queue.done(ROOM, SPAN_MAX)
    assert [(one[0], one[3]) for one in taken(queue)] == [(ROOM, SPAN_MAX + 2), (OTHER, 1)]


def test_room_far_behind_comes_last() -> None:
    queue = queue_of(unread(0, 10_000), span(0, 1, 1, room=OTHER))
    assert taken(queue) == [(ROOM, 0, None, SPAN_MAX)]
    queue.done(ROOM, SPAN_MAX)
    assert [one[0] for one in taken(queue)] == [OTHER, ROOM]


def test_room_of_a_lost_partition_is_forgotten() -> None:
    queue = queue_of(span(0, 2, 1, 2))
    queue.drop(ready)
    queue.done(ROOM, 2)
    assert queue.is_empty and len(queue) == 0


def test_checkpoint_waits_for_rooms_that_it_found() -> None:
    queue = ConsumerQueue()
    queue.put(span(0, 1, 1, since_ms=100), 7)
    assert (queue.oldest_ms(150), queue.checkpoint_ms(150)) == (100, 7)
    queue.done(ROOM, 1)
    assert (queue.oldest_ms(150), queue.checkpoint_ms(150)) == (150, 150)
