"""Waits between a death and the next start."""

from hypothesis import given
from hypothesis import strategies as st

from deploy.local.backoff import Backoff


def test_waits_double_up_to_five_seconds() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(0.1) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_half_a_minute_of_life_starts_the_waits_over() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(29.9)
    assert backoff.delay_s(30.0) == 0.2
    assert backoff.delay_s(0.1) == 0.4


@given(st.lists(st.floats(min_value=0.0, max_value=100.0)))
def test_every_wait_is_bounded(ages_s: list[float]) -> None:
    backoff = Backoff()
    assert all(0.2 <= backoff.delay_s(age_s) <= 5.0 for age_s in ages_s)
