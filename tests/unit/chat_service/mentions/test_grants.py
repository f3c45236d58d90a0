"""The rate of notified mentions."""

from chat_service.mentions.grants import GRANTS_MAX, WINDOW_MS, Asked, Grants, all_granted, granted


def test_sixty_mentions_of_an_hour_are_notified() -> None:
    passed, grants = granted(Grants(), [f"m/{number}" for number in range(GRANTS_MAX + 5)], 1_000)
    assert passed == [f"m/{number}" for number in range(GRANTS_MAX)]
    assert granted(grants, ["m/other"], 1_000 + WINDOW_MS - 1)[0] == []
    assert granted(grants, ["m/other"], 1_000 + WINDOW_MS)[0] == ["m/other"]


def test_repeat_is_granted_again_and_counts_once() -> None:
    _, grants = granted(Grants(), [f"m/{number}" for number in range(GRANTS_MAX)], 1_000)
    passed, after = granted(grants, ["m/3", "m/new"], 2_000)
    assert (passed, after) == (["m/3"], grants)


def test_messages_of_a_sender_are_granted_as_one_after_another() -> None:
    asked = [Asked([f"m{number}/ann", f"m{number}/ben"], 1_000 + number) for number in range(GRANTS_MAX)]
    asked.append(Asked(["m0/ann", "m99/ann"], 2_000))
    passed, grants = all_granted(Grants(), asked)
    one_by_one, kept = set[str](), Grants()
    for ids, at_ms in asked:
        some, kept = granted(kept, ids, at_ms)
        one_by_one |= set(some)
    assert (passed, grants) == (one_by_one, kept)
    assert len(passed) == GRANTS_MAX and "m0/ann" in passed and "m99/ann" not in passed
