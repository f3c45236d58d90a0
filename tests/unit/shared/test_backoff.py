"""The delays between retries."""

from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import Backoff


def test_delay_doubles_up_to_the_maximum() -> None:
    backoff = Backoff(0.2, 5.0)
    assert [backoff.next_s() for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_reset_starts_at_the_first_delay() -> None:
    backoff = Backoff(0.2, 5.0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert [backoff.next_s(), backoff.next_s()] == [0.2, 0.4]


def test_equal_bounds_give_a_constant_delay() -> None:
    backoff = Backoff(1.0, 1.0)
    assert [backoff.next_s() for _ in range(3)] == [1.0, 1.0, 1.0]


@given(st.lists(st.booleans()))
def test_every_delay_is_within_the_bounds(successes: list[bool]) -> None:
    backoff = Backoff(0.2, 5.0)
    for succeeded in successes:
        if succeeded:
            backoff.reset()
        assert 0.2 <= backoff.next_s() <= 5.0
