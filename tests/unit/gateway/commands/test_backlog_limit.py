"""Adaptive limit of the commands that wait for a partition."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.backlog_limit import ANSWER_TARGET_MS, WAITING_MIN, BacklogLimit
from shared.commands.body import COMMANDS_MAX

bodies = st.lists(st.tuples(st.integers(1, COMMANDS_MAX), st.integers(0, 10_000)), max_size=50)


def test_fast_owner_lets_a_whole_body_gather() -> None:
    limit = BacklogLimit()
    for _ in range(3):
        limit.body_answered(5, 10)
    assert limit.value == COMMANDS_MAX


def test_late_bodies_lower_the_limit_to_what_is_answered_in_time() -> None:
    limit = BacklogLimit()
    for _ in range(4):
        limit.body_answered(400, 4 * ANSWER_TARGET_MS)
    assert limit.value == 100


def test_one_late_body_halves_the_limit_at_most() -> None:
    limit = BacklogLimit()
    limit.body_answered(100, 20 * ANSWER_TARGET_MS)
    assert limit.value == COMMANDS_MAX // 2


def test_late_body_of_few_commands_changes_nothing() -> None:
    limit = BacklogLimit()
    limit.body_answered(WAITING_MIN - 1, 5_000)
    assert limit.value == COMMANDS_MAX


def stalled() -> BacklogLimit:
    limit = BacklogLimit()
    for _ in range(10):
        limit.body_answered(WAITING_MIN, 5_000)
    return limit


def test_stalled_owner_leaves_the_minimum() -> None:
    assert stalled().value == WAITING_MIN


def test_limit_recovers_from_the_minimum_within_ten_fast_bodies() -> None:
    limit = stalled()
    for _ in range(10):
        limit.body_answered(1, 10)
    assert limit.value == COMMANDS_MAX


def test_answer_near_the_target_changes_nothing() -> None:
    limit = stalled()
    limit.body_answered(WAITING_MIN, ANSWER_TARGET_MS)
    assert limit.value == WAITING_MIN


@given(bodies)
def test_limit_stays_between_its_bounds(history: list[tuple[int, int]]) -> None:
    limit = BacklogLimit()
    for commands, took_ms in history:
        limit.body_answered(commands, took_ms)
        assert WAITING_MIN <= limit.value <= COMMANDS_MAX


def test_constant_overload_settles_at_two_target_times_of_waiting() -> None:
    limit, per_second = BacklogLimit(), 1_000
    waits_ms: list[int] = []
    waiting = COMMANDS_MAX
    for _ in range(30):  # the commands that gathered form the next body
        took_ms = waiting * 1000 // per_second
        limit.body_answered(waiting, took_ms)
        waiting = limit.value
        waits_ms.append(took_ms)
    assert max(waits_ms[4:]) <= 1.2 * ANSWER_TARGET_MS
