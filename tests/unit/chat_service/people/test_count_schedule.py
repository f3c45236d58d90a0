"""When large rooms are sent their number of members online."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chat_service.people.count_schedule import COUNT_INTERVAL_MS, ROOMS_REMEMBERED_MAX, CountSchedule, OwedCount


def owe(schedule: CountSchedule, now_ms: int, *room_ids: str) -> dict[str, int]:
    due_ms = schedule.owe(room_ids, now_ms)
    schedule.note_owed(due_ms)
    return due_ms


def test_first_count_is_due_at_once_and_the_next_after_the_interval() -> None:
    schedule = CountSchedule()
    assert not schedule.is_due(1_000)
    assert owe(schedule, 1_000, "r") == {"r": 1_000}
    assert schedule.is_due(1_000)
    assert schedule.due([OwedCount("r", 1_000)], 1_000, is_all=True) == ["r"]
    schedule.note_sending(["r"], 1_000)
    assert owe(schedule, 2_000, "r") == {"r": 1_000 + COUNT_INTERVAL_MS}
    assert not schedule.is_due(5_999)
    assert schedule.is_due(6_000)


def test_more_counts_may_be_due_than_were_read() -> None:
    schedule = CountSchedule(0)
    schedule.due([OwedCount("r", 0)], 0, is_all=False)
    assert schedule.is_due(0)
    schedule.due([], 0, is_all=True)
    assert not schedule.is_due(1_000_000)


def test_count_that_is_owed_is_not_owed_twice() -> None:
    schedule = CountSchedule()
    owe(schedule, 0, "r")
    assert owe(schedule, 1, "r", "s") == {"s": 1}


def test_unsent_count_of_another_announcer_is_due_at_once() -> None:
    schedule = CountSchedule(9_000)
    assert schedule.is_due(9_000)
    assert schedule.due([OwedCount("r", 4_000), OwedCount("s", 9_500)], 9_000, is_all=False) == ["r"]
    assert not schedule.is_due(9_499)
    assert schedule.is_due(9_500)


def test_room_waits_for_the_interval_after_a_takeover() -> None:
    """The other announcer may have sent its count just before."""
    assert owe(CountSchedule(9_000), 9_100, "r") == {"r": 9_000 + COUNT_INTERVAL_MS}


def test_remembered_rooms_are_bounded() -> None:
    schedule = CountSchedule()
    rooms = [f"r{number}" for number in range(ROOMS_REMEMBERED_MAX + 1)]
    schedule.note_sending(rooms, 1_000)
    assert owe(schedule, 1_001, "r1", "new") == dict.fromkeys(["r1", "new"], 1_000 + COUNT_INTERVAL_MS)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3_000)), max_size=60))
def test_room_is_sent_at_most_one_count_an_interval_and_no_change_is_left_out(changes: list[tuple[str, int]]) -> None:
    schedule, stored, sent, now_ms = CountSchedule(), dict[str, int](), list[tuple[str, int]](), 0
    changed_at_ms: dict[str, int] = {}

    def send() -> None:
        if schedule.is_due(now_ms):
            owed = sorted((OwedCount(*entry) for entry in stored.items()), key=lambda count: count.due_at_ms)
            due = schedule.due(owed[:2], now_ms, is_all=len(owed) <= 2)
            schedule.note_sending(due, now_ms)
            for room_id in due:
                del stored[room_id]
                sent.append((room_id, now_ms))

    for room_id, wait_ms in [*changes, *[("", 1_000)] * 12]:
        now_ms += wait_ms
        if room_id:
            changed_at_ms[room_id] = now_ms
            due_ms = schedule.owe([room_id], now_ms)
            stored |= due_ms
            schedule.note_owed(due_ms)
        send()
    for room_id in "abc":
        times = [at_ms for other, at_ms in sent if other == room_id]
        assert all(later - earlier >= COUNT_INTERVAL_MS for earlier, later in pairwise(times))
        assert (max(times) if times else -1) >= changed_at_ms.get(room_id, -1)
