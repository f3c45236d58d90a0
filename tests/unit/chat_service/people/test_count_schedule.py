"""The schedule for sending large rooms their number of members online."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chat_service.people.count_schedule import COUNT_INTERVAL_MS, ROOMS_REMEMBERED_MAX, CountSchedule, RoomCounts


def change(schedule: CountSchedule, now_ms: int, *room_ids: str) -> RoomCounts:
    counts = schedule.note_changes(room_ids, now_ms)
    schedule.note_pending(counts.due_ms)
    schedule.note_sending(counts.now, now_ms)
    return counts


def test_first_count_is_sent_at_once_and_the_next_after_the_interval() -> None:
    schedule = CountSchedule()
    assert change(schedule, 1_000, "r") == RoomCounts(["r"], {})
    assert change(schedule, 2_000, "r") == RoomCounts([], {"r": 6_000})
    assert change(schedule, 3_000, "r", "s") == RoomCounts(["s"], {})  # a pending count is not added again
    assert (schedule.is_due(5_999), schedule.due(5_999, 20)) == (False, [])
    assert (schedule.is_due(6_000), schedule.due(6_000, 20)) == (True, ["r"])
    schedule.note_sending(["r"], 6_000)
    assert not schedule.is_due(6_000)
    assert change(schedule, 11_000, "r") == RoomCounts(["r"], {})


def test_counts_are_due_in_the_order_of_their_times() -> None:
    schedule = CountSchedule()
    schedule.note_pending({"b": 2, "a": 3, "c": 1, "d": 9})
    assert schedule.due(5, 2) == ["c", "b"]


def test_room_waits_for_the_interval_after_a_takeover() -> None:
    """The other announcer may have sent its count just before."""
    assert change(CountSchedule(9_000), 9_100, "r") == RoomCounts([], {"r": 9_000 + COUNT_INTERVAL_MS})


def test_remembered_rooms_are_bounded() -> None:
    schedule = CountSchedule()
    schedule.note_sending([f"r{number}" for number in range(ROOMS_REMEMBERED_MAX + 1)], 1_000)
    assert change(schedule, 1_001, "r1", "new").due_ms == dict.fromkeys(["r1", "new"], 1_000 + COUNT_INTERVAL_MS)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3_000)), max_size=60))
def test_room_is_sent_at_most_one_count_an_interval_and_no_change_is_left_out(changes: list[tuple[str, int]]) -> None:
    schedule, sent, now_ms = CountSchedule(), list[tuple[str, int]](), 0
    changed_at_ms: dict[str, int] = {}
    for room_id, wait_ms in [*changes, *[("", 1_000)] * 12]:
        now_ms += wait_ms
        due = schedule.due(now_ms, 2)
        schedule.note_sending(due, now_ms)
        if room_id:
            changed_at_ms[room_id] = now_ms
            due = [*due, *change(schedule, now_ms, room_id).now]
        sent += [(one, now_ms) for one in due]
    for room_id in "abc":
        times = [at_ms for other, at_ms in sent if other == room_id]
        assert all(later - earlier >= COUNT_INTERVAL_MS for earlier, later in pairwise(times))
        assert (max(times) if times else -1) >= changed_at_ms.get(room_id, -1)
