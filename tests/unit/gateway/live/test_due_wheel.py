"""Items are returned once, within a second after they are due."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.live.due_wheel import DueWheel


def test_item_is_returned_once_within_a_second_after_it_is_due() -> None:
    wheel = DueWheel[str]()
    wheel.add("early", 10.2)
    wheel.add("late", 13.0)
    assert wheel.take(10.9) == []
    assert wheel.take(11.2) == ["early"]
    assert wheel.take(13.9) == []
    assert wheel.take(14.0) == ["late"]
    assert wheel.take(99.0) == []


def test_overdue_item_is_returned_by_the_next_take() -> None:
    wheel = DueWheel[str]()
    wheel.take(50.5)
    wheel.add("overdue", 0.0)
    assert wheel.take(50.9) == []  # in the next second
    assert wheel.take(51.0) == ["overdue"]


def test_item_is_in_the_wheel_once() -> None:
    wheel = DueWheel[str]()
    wheel.add("moved", 10.0)
    wheel.add("moved", 20.0)
    assert wheel.take(15.0) == []
    assert wheel.take(21.0) == ["moved"]
    assert len(wheel) == 0


def test_discarded_item_is_not_returned() -> None:
    wheel = DueWheel[str]()
    wheel.add("gone", 10.0)
    wheel.discard("gone")
    wheel.discard("gone")
    assert len(wheel) == 0
    assert wheel.take(99.0) == []


@given(
    st.lists(st.floats(0, 60), max_size=30),
    st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_no_item_is_lost_repeated_or_early(dues_s: list[float], steps_s: list[float]) -> None:
    wheel = DueWheel[int]()
    for number, due_s in enumerate(dues_s):
        wheel.add(number, due_s)
    now_s = 0.0
    found: list[int] = []
    for step_s in [*steps_s, 70.0]:
        now_s += step_s
        taken = wheel.take(now_s)
        assert all(dues_s[number] <= now_s for number in taken)
        found += taken
    assert sorted(found) == list(range(len(dues_s)))
    assert len(wheel) == 0
