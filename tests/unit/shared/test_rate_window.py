"""The rate limit of one user: an exact sliding window."""

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from shared.rate_window import SlidingWindow

MINUTE_MS = 60_000
numbers = itertools.count(1)


def charge_all(window: SlidingWindow, user: str, times_ms: Iterable[int]) -> list[int]:
    """Charge a message of a new command at each of these times."""
    return [window.charge(user, f"cmd_{next(numbers)}", at_ms) for at_ms in times_ms]


def test_message_above_limit_waits_until_oldest_leaves_window() -> None:
    window = SlidingWindow(3)
    assert charge_all(window, "u", (0, 10, 20)) == [0, 0, 0]
    assert charge_all(window, "u", (30, MINUTE_MS - 1)) == [MINUTE_MS - 30, 1]
    assert charge_all(window, "u", (MINUTE_MS, MINUTE_MS)) == [0, 10]


def test_refused_message_does_not_count() -> None:
    window = SlidingWindow(1)
    charge_all(window, "u", (0,))
    assert all(charge_all(window, "u", range(1, 1000)))
    assert charge_all(window, "u", (MINUTE_MS,)) == [0]


def test_users_are_counted_separately() -> None:
    window = SlidingWindow(1)
    assert (window.charge("u", "1", 0), window.charge("v", "2", 0)) == (0, 0)
    assert window.charge("u", "3", 1) > 0


def test_command_that_arrives_again_counts_once() -> None:
    window = SlidingWindow(2)
    assert [window.charge("u", "same", at_ms) for at_ms in range(5)] == [0] * 5
    assert charge_all(window, "u", (6, 7)) == [0, MINUTE_MS - 7]
    assert window.charge("u", "same", 8) == 0, "it is counted already"


def test_repeat_is_refunded() -> None:
    window = SlidingWindow(1)
    window.charge("u", "1", 0)
    window.refund("u", "1")
    assert charge_all(window, "u", (1, 2)) == [0, MINUTE_MS - 1]


def test_refund_without_charge_does_nothing() -> None:
    window = SlidingWindow(1)
    window.refund("u", "1")
    assert window.charge("u", "2", 0) == 0
    window.refund("u", "1")
    assert window.charge("u", "3", 1) == MINUTE_MS - 1


def test_units_are_summed_and_the_wait_is_until_enough_leave() -> None:
    window = SlidingWindow(10)
    assert [window.charge("u", id_, at_ms, units) for id_, at_ms, units in (("1", 0, 4), ("2", 10, 6))] == [0, 0]
    assert window.charge("u", "3", 20, 1) == MINUTE_MS - 20
    assert window.charge("u", "4", 20, 5) == MINUTE_MS - 10, "both must leave"
    assert window.charge("u", "5", MINUTE_MS, 4) == 0
    window.refund("u", "2")
    assert window.charge("u", "6", MINUTE_MS + 1, 6) == 0


def test_more_units_than_the_limit_never_fit() -> None:
    window = SlidingWindow(10)
    assert window.charge("u", "1", 0, 11) == MINUTE_MS
    window.charge("u", "2", 1)
    assert window.charge("u", "3", 2, 11) == MINUTE_MS


def test_question_for_the_wait_charges_nothing() -> None:
    window = SlidingWindow(1)
    assert [window.wait_ms("u", id_, 0) for id_ in ("1", "2", "3")] == [0, 0, 0]
    window.charge("u", "1", 0)
    assert (window.wait_ms("u", "1", 1), window.wait_ms("u", "2", 1)) == (0, MINUTE_MS - 1)


def test_only_users_of_the_last_window_are_kept() -> None:
    window = SlidingWindow(5)
    for number in range(1000):
        window.charge(f"user_{number}", "1", number * 100)
    assert len(window) == 600
    window.charge("last", "1", 1_000_000)
    assert len(window) == 1


steps = st.lists(
    st.tuples(st.sampled_from("uvw"), st.integers(0, 400), st.sampled_from(["charge", "charge", "again", "refund"])),
    max_size=80,
)


@given(steps, st.integers(1, 5))
def test_window_admits_exactly_limit(script: list[tuple[str, int, str]], limit: int) -> None:
    window = SlidingWindow(limit, window_ms=1000)
    sent: dict[str, dict[str, int]] = {"u": {}, "v": {}, "w": {}}
    now_ms = 0
    for number, (user, pause_ms, action) in enumerate(script):
        now_ms += pause_ms
        in_window = {id_: at_ms for id_, at_ms in sent[user].items() if at_ms > now_ms - 1000}
        newest = next(reversed(in_window), None)
        if action == "refund":
            if newest is not None:
                del in_window[newest]
                window.refund(user, newest)
        elif action == "again" and newest is not None:
            assert window.charge(user, newest, now_ms) == 0
        else:
            wait_ms = window.charge(user, f"cmd_{number}", now_ms)
            assert (wait_ms == 0) == (len(in_window) < limit)
            if wait_ms:
                assert wait_ms == next(iter(in_window.values())) + 1000 - now_ms
            else:
                in_window[f"cmd_{number}"] = now_ms
        sent[user] = in_window
