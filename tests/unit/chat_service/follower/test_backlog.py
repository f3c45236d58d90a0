"""The backlog of the log follower."""

from chat_service.follower.backlog import Backlog
from tests.bench.plans import an_entry

ROOM = "room_1"


def ready(_: str) -> bool:
    return True


def revs(backlog: Backlog) -> list[tuple[str, list[int] | tuple[int, int]]]:
    """Take what waits, and return revs in memory, or the range to read from the log."""
    return [
        (
            span.room_id,
            [entry.rev for entry in span.entries] if span.entries is not None else (span.after, span.through),
        )
        for span in backlog.take(ready)
    ]


def note(backlog: Backlog, *entries: int) -> Backlog:
    backlog.note([an_entry(ROOM, rev) for rev in entries], 1)
    return backlog


def noted(*entries: int, size: int = 100) -> Backlog:
    return note(Backlog(size), *entries)


def test_contiguous_entries_are_taken_from_memory_once() -> None:
    backlog = noted(5, 6, 7)
    assert revs(backlog) == [(ROOM, [5, 6, 7])]
    assert backlog.is_empty and len(backlog) == 0
    assert revs(note(backlog, 8)) == [(ROOM, [8])]


def test_repeats_are_dropped() -> None:
    backlog = noted(5, 6, 5, 6)
    backlog.take(ready)
    assert note(backlog, 5, 6).is_empty


def test_gap_is_read_from_the_log() -> None:
    backlog = noted(5)
    backlog.take(ready)
    assert revs(note(backlog, 8)) == [(ROOM, (5, 8))]


def test_older_entry_moves_a_guessed_start() -> None:
    assert revs(noted(8, 5)) == [(ROOM, (4, 8))]


def test_full_backlog_leaves_the_room_to_the_log() -> None:
    backlog = noted(1, 2, 3, 4, size=3)
    assert len(backlog) == 0
    assert revs(backlog) == [(ROOM, (0, 4))]


def test_entries_that_were_found_in_the_log_are_skipped() -> None:
    backlog = noted(7, 8, 9)
    assert backlog.skip(ROOM, 8) is None
    assert len(backlog) == 1
    assert revs(backlog) == [(ROOM, [9])]
    assert backlog.skip(ROOM, 8) == 9
    assert backlog.skip(ROOM, 11) == 9
    assert note(backlog, 10, 11).is_empty
    assert revs(note(backlog, 12)) == [(ROOM, [12])]


def test_gap_between_the_log_and_what_was_noted_is_read() -> None:
    backlog = noted(9)
    assert backlog.skip(ROOM, 6) is None
    assert revs(backlog) == [(ROOM, (6, 9))]


def test_room_that_was_found_whole_in_the_log_waits_no_longer() -> None:
    backlog = noted(5, 6)
    backlog.skip(ROOM, 7)
    assert backlog.is_empty and len(backlog) == 0


def test_room_of_a_lost_partition_is_forgotten() -> None:
    backlog = noted(5, 6)
    backlog.drop(ready)
    assert backlog.is_empty and len(backlog) == 0
    assert revs(note(backlog, 6)) == [(ROOM, [6])]


def test_room_that_is_not_ready_waits_without_holding_up_others() -> None:
    backlog = noted(5)
    backlog.note([an_entry("room_2", 1)], 1)
    assert [span.room_id for span in backlog.take(lambda room_id: room_id != ROOM)] == ["room_2"]
    assert revs(backlog) == [(ROOM, [5])]


def test_age_is_that_of_the_longest_waiting_room() -> None:
    backlog = noted(5)
    backlog.note([an_entry("room_2", 1)], 7)
    assert (backlog.oldest_ms(9), Backlog().oldest_ms(9)) == (1, 9)
