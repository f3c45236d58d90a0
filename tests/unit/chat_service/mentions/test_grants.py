"""The rate of notified mentions."""

from chat_service.mentions.grants import GRANTS_MAX, WINDOW_MS, Grants, granted


def test_sixty_mentions_of_an_hour_are_notified() -> None:
    passed, grants = granted(Grants(), [f"m/{number}" for number in range(GRANTS_MAX + 5)], 1_000)
    assert passed == [f"m/{number}" for number in range(GRANTS_MAX)]
    assert granted(grants, ["m/other"], 1_000 + WINDOW_MS - 1)[0] == []
    assert granted(grants, ["m/other"], 1_000 + WINDOW_MS)[0] == ["m/other"]


def test_repeat_is_granted_again_and_counts_once() -> None:
    _, grants = granted(Grants(), [f"m/{number}" for number in range(GRANTS_MAX)], 1_000)
    passed, after = granted(grants, ["m/3", "m/new"], 2_000)
    assert (passed, after) == (["m/3"], grants)
