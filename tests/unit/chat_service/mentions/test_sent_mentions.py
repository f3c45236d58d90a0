"""The rate of mention notifications."""

from chat_service.mentions.sent_mentions import SENT_MAX, WINDOW_MS, SentMentions, within_rate


def test_sixty_mentions_of_an_hour_are_notified() -> None:
    passed, sent = within_rate(SentMentions(), [f"m/{number}" for number in range(SENT_MAX + 5)], 1_000)
    assert passed == [f"m/{number}" for number in range(SENT_MAX)]
    assert within_rate(sent, ["m/other"], 1_000 + WINDOW_MS - 1)[0] == []
    assert within_rate(sent, ["m/other"], 1_000 + WINDOW_MS)[0] == ["m/other"]


def test_repeat_is_sent_again_and_counts_once() -> None:
    _, sent = within_rate(SentMentions(), [f"m/{number}" for number in range(SENT_MAX)], 1_000)
    passed, after = within_rate(sent, ["m/3", "m/new"], 2_000)
    assert (passed, after) == (["m/3"], sent)
