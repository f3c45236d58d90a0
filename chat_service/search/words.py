"""The words of a message and of a query. Pure.

Words are those of room names (`words_in`: NFKC, case-folded). Runs of Chinese, Japanese and Korean characters, which
have no blanks between words, are cut into overlapping pairs; the last character of a run is a word too, so that every
single character is the prefix of one.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from chat_service.rooms.room import folded_text, words_in

WORDS_MAX = 500  # of a message; the first ones
WORD_MAX = 64  # characters of a word in the index; longer ones are cut there and compared whole with the message
_CJK = (
    r"\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    r"\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_parts = re.compile(f"[{_CJK}]+|[^{_CJK}]+")
_is_cjk = re.compile(f"[{_CJK}]")


class Needle(NamedTuple):
    """A word to find; with `is_prefix`, any word that begins with it."""

    word: str
    is_prefix: bool

    @property
    def pattern(self) -> str:
        """Return the substring to look for in `packed` words."""
        word = self.word[:WORD_MAX]
        return f" {word}" if self.is_prefix and len(self.word) < WORD_MAX else f" {word} "


def message_words(text: str) -> list[str]:
    """Return the distinct words of a message, at most 500, in order."""
    words = words_in(text)
    if not text.isascii():  # HOT: most texts are
        words = [part for word in words for part in _cut(word)]
    return list(dict.fromkeys(words))[:WORDS_MAX]


def packed(words: Iterable[str]) -> str:
    """Return words as a text between blanks, for `Needle.pattern`. No word contains a blank."""
    return f" {' '.join([word[:WORD_MAX] for word in words])} "


def needles_of(query: str) -> list[Needle]:
    """Return the words that a message has to contain; empty if the query has none. The last may be a prefix."""
    words = words_in(query)
    needles = [needle for word in words[:-1] for needle in _needles_of_word(word, is_last=False)]
    if words:
        needles += _needles_of_word(words[-1], is_last=True)
    return sorted(set(needles), key=lambda needle: (-len(needle.word), needle))  # long words exclude most


def matches(needles: Sequence[Needle], text: str) -> bool:
    """Return whether a message's text contains every word."""
    folded = folded_text(text)
    if not all(needle.word in folded for needle in needles):  # HOT: excludes most in a tenth of the time
        return False
    words = set(message_words(text))
    return all(
        any(word.startswith(needle.word) for word in words) if needle.is_prefix else needle.word in words
        for needle in needles
    )


def _needles_of_word(word: str, *, is_last: bool) -> Iterable[Needle]:
    parts = _parts.findall(word)
    for index, part in enumerate(parts):
        if _is_cjk.match(part):
            pairs = [part[start : start + 2] for start in range(len(part) - 1)]
            yield from (Needle(pair, False) for pair in pairs)
            if not pairs:
                yield Needle(part, True)
        else:
            yield Needle(part, is_last and index == len(parts) - 1)


def _cut(word: str) -> Iterable[str]:
    for part in _parts.findall(word):
        if _is_cjk.match(part):
            yield from (part[start : start + 2] for start in range(len(part)))
        else:
            yield part
