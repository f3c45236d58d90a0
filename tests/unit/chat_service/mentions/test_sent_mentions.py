"""The rate of notified mentions."""

from chat_service.mentions.sent_mentions import SENT_MAX, WINDOW_MS, Asked, SentMentions, all_within_rate, within_rate


def test_sixty_mentions_of_an_hour_are_notified() -> None:
    passed, sent = within_rate(SentMentions(), [f"m/{number}" for number in range(SENT_MAX + 5)], 1_000)
    assert passed == [f"m/{number}" for number in range(SENT_MAX)]
    assert within_rate(sent, ["m/other"], 1_000 + WINDOW_MS - 1)[0] == []
    assert within_rate(sent, ["m/other"], 1_000 + WINDOW_MS)[0] == ["m/other"]


def test_repeat_is_sent_again_and_counts_once() -> None:
    _, sent = within_rate(SentMentions(), [f"m/{number}" for number in range(SENT_MAX)], 1_000)
    passed, after = within_rate(sent, ["m/3", "m/new"], 2_000)
    assert (passed, after) == (["m/3"], sent)


def test_messages_of_a_sender_pass_as_one_after_another() -> None:
    asked = [Asked([f"m{number}/ann", f"m{number}/ben"], 1_000 + number) for number in range(SENT_MAX)]
    asked.append(Asked(["m0/ann", "m99/ann"], 2_000))
    passed, sent = all_within_rate(SentMentions(), asked)
    one_by_one, kept = set[str](), SentMentions()
    for ids, at_ms in asked:
        some, kept = within_rate(kept, ids, at_ms)
        one_by_one |= set(some)
    assert (passed, sent) == (one_by_one, kept)
    assert len(passed) == SENT_MAX and "m0/ann" in passed and "m99/ann" not in passed
