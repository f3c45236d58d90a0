"""The words of messages and queries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.search.words import WORD_MAX, WORDS_MAX, matches, message_words, needles_of, packed


def found(query: str, text: str) -> bool:
    """Return whether the index, and the message itself, show a text for a query; they must agree."""
    needles = needles_of(query)
    is_indexed = all(needle.pattern in packed(message_words(text)) for needle in needles)
    is_hit = matches(needles, text)
    assert is_hit <= is_indexed
    return is_hit


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("euro", "Buy EURO now"),
        ("usd eur", "EUR/USD looks strong"),
        ("stro", "EUR/USD looks strong"),
        ("\uff25\uff35\uff32", "eur"),
        ("strasse", "Hauptstraße"[5:]),
        ("straße", "STRASSE"),
        ("東京", "今日は東京都です"),
        ("東京都", "今日は東京都です"),
        ("京", "東京"),
        ("東", "東京"),
        ("都 today", "東京都 today"),
        ("btc 上", "BTC上涨"),
        ("한국", "한국어 배우기"),
        ("हिन्द", "यह हिन्दी है"),
        ("12 085", "1.0850 or 12"),
        ("usd!", "dollar usdt"),
    ],
)
def test_query_finds_text(query: str, text: str) -> None:
    assert found(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("usd eur", "usd only"),
        ("stro eur", "EUR/USD strong"),
        ("ong", "strong"),
        ("東都", "東京都"),
        ("東京 x", "東京"),
    ],
)
def test_query_does_not_find_text(query: str, text: str) -> None:
    assert not found(query, text)


def test_query_without_a_word_has_no_needle() -> None:
    assert needles_of("!? --") == []


def test_message_has_at_most_500_different_words() -> None:
    assert len(message_words(" ".join(f"w{number}" for number in range(2_000)))) == WORDS_MAX


def test_long_word_is_compared_whole_with_the_message() -> None:
    long, other = "a" * WORD_MAX + "b", "a" * WORD_MAX + "c"
    assert found(long, long)
    assert found(long[:-1], long)
    assert not found(f"{long} x", f"{other} x")


@given(st.text(max_size=60), st.data())
def test_every_word_and_its_beginning_are_found(text: str, data: st.DataObject) -> None:
    words = message_words(text)
    if words:
        word = data.draw(st.sampled_from(words))
        assert found(word, text)
