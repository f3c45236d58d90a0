"""The trend line by which the soak detects growth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.trend import trend


@given(st.floats(-1e6, 1e6), st.integers(2, 200))
def test_constant_figure_does_not_grow(value: float, count: int) -> None:
    assert trend([(at, value) for at in range(count)]).growth == pytest.approx(0.0, abs=1e-6)


def test_leak_is_detected_in_noise() -> None:
    leaking = [(at, 100 + at / 10 + (at * 7919 % 13) - 6) for at in range(600)]
    assert trend(leaking).growth == pytest.approx(42.0, abs=2.0)


def test_warm_up_is_not_growth() -> None:
    assert trend([(at, min(at, 20)) for at in range(100)]).growth == 0.0


@pytest.mark.parametrize("samples", [[], [(1.0, 5.0)]])
def test_too_few_samples_are_flat(samples: list[tuple[float, float]]) -> None:
    assert trend(samples).growth == 0.0
