"""The backlog of the log follower."""

from chat_service.follower.backlog import SPAN_MAX, Backlog
from tests.bench.plans import an_entry

ROOM = "room_1"


def ready(_: str) -> bool:
    return True


def revs(backlog: Backlog) -> list[tuple[str, list[int] | tuple[int, int]]]:
    """Return the taken entries: revs in memory, or the range to read from the log."""
    return [
        (
            span.room_id,
            [entry.rev for entry in span.entries] if span.entries is not None else (span.after, span.through),
        )
        for span in backlog.take(ready)
    ]


def noted(*entries: int, size: int = 100) -> Backlog:
    backlog = Backlog(size)
    backlog.note([an_entry(ROOM, rev) for rev in entries], 1)
    return backlog


def test_contiguous_entries_are_taken_from_memory() -> None:
    assert revs(noted(5, 6, 7)) == [(ROOM, [5, 6, 7])]


def test_entries_stay_until_they_are_done() -> None:
    backlog = noted(5, 6, 7)
    backlog.take(ready)
    backlog.done(ROOM, 6)
    assert revs(backlog) == [(ROOM, [7])]
    backlog.done(ROOM, 7)
    assert backlog.is_empty and len(backlog) == 0


def test_repeats_are_dropped() -> None:
    backlog = noted(5, 6, 5, 6)
    backlog.done(ROOM, 6)
    backlog.note([an_entry(ROOM, 5), an_entry(ROOM, 6)], 2)
    assert backlog.is_empty


def test_gap_is_read_from_the_log() -> None:
    backlog = noted(5)
    backlog.done(ROOM, 5)
    backlog.note([an_entry(ROOM, 8)], 2)
    assert revs(backlog) == [(ROOM, (5, 8))]


def test_older_entry_moves_a_guessed_start() -> None:
    assert revs(noted(8, 5)) == [(ROOM, (4, 8))]


def test_full_backlog_leaves_the_room_to_the_log() -> None:
    backlog = noted(1, 2, 3, 4, size=3)
    assert len(backlog) == 0
    assert revs(backlog) == [(ROOM, (0, 4))]


def test_room_resumes_after_its_saved_position() -> None:
    backlog = noted(9)
    backlog.resume(ROOM, 3, 9, 2, 2)
    assert revs(backlog) == [(ROOM, (3, 9))]


def test_room_resumes_after_what_this_process_handed_over() -> None:
    backlog = noted(9)
    backlog.done(ROOM, 9)
    backlog.resume(ROOM, 3, 11, 2, 2)
    assert revs(backlog) == [(ROOM, (9, 11))]


def test_room_of_a_lost_partition_is_forgotten() -> None:
    backlog = noted(5, 6)
    backlog.drop(ready)
    assert backlog.is_empty and len(backlog) == 0
    backlog.done(ROOM, 6)
    backlog.note([an_entry(ROOM, 6)], 2)
    assert revs(backlog) == [(ROOM, [6])]


def test_room_that_is_not_ready_waits_without_holding_up_others() -> None:
    backlog = noted(5)
    backlog.note([an_entry("room_2", 1)], 1)
    assert [span.room_id for span in backlog.take(lambda room_id: room_id != ROOM)] == ["room_2"]


def test_batch_is_bounded_and_a_room_far_behind_comes_last() -> None:
    backlog = Backlog()
    backlog.resume(ROOM, 0, 10_000, 1, 1)
    backlog.note([an_entry("room_2", 1)], 1)
    assert revs(backlog) == [(ROOM, (0, SPAN_MAX))]
    backlog.done(ROOM, SPAN_MAX)
    assert revs(backlog)[0] == ("room_2", [1])


def test_age_is_that_of_the_longest_waiting_room() -> None:
    backlog = noted(5)
    backlog.note([an_entry("room_2", 1)], 7)
    assert (backlog.oldest_ms(9), Backlog().oldest_ms(9)) == (1, 9)


def test_checkpoint_waits_for_rooms_that_it_found() -> None:
    backlog = Backlog()
    backlog.resume(ROOM, 0, 1, 100, 7)
    assert (backlog.oldest_ms(150), backlog.checkpoint_ms(150)) == (100, 7)
    backlog.done(ROOM, 1)
    assert (backlog.oldest_ms(150), backlog.checkpoint_ms(150)) == (150, 150)
