"""The judgement on creators of rooms."""

import pytest

from tests.chaos.roles import CreatorCount, longest_wrong_s


@pytest.mark.parametrize(
    ("creators", "members", "is_right"), [(1, 3, True), (0, 0, True), (0, 2, False), (2, 3, False), (1, 0, False)]
)
def test_room_with_members_has_one_creator(creators: int, members: int, is_right: bool) -> None:
    assert CreatorCount(0.0, creators, members).is_right is is_right


def wrong(at_s: float) -> CreatorCount:
    return CreatorCount(at_s, 2, 2)


def right(at_s: float) -> CreatorCount:
    return CreatorCount(at_s, 1, 2)


def test_longest_wrong_time_ends_with_a_right_count() -> None:
    assert longest_wrong_s([]) == 0.0
    assert longest_wrong_s([right(0), wrong(1), right(50)]) == 0.0, "it may have been right soon after"
    assert longest_wrong_s([wrong(1), wrong(4), right(5), wrong(6), wrong(8)]) == 3
