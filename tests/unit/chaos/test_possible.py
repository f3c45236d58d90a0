"""The values that a thing may have after unanswered changes."""

from tests.chaos.possible import Possible


def test_unanswered_change_leaves_both_values_until_one_is_confirmed() -> None:
    state: Possible[str | None] = Possible("first")
    state.attempt(lambda before: None if before is None else "second")
    assert state.values == {"first", "second"}
    state.attempt(lambda _: None)
    assert state.values == {"first", "second", None}
    assert state.is_possible(None)
    state.confirm("third")
    assert not state.is_possible("first")
