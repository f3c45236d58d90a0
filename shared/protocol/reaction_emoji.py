"""The emoji of reactions. Pure.

A reaction is one emoji that platforms show as one character, or the name of a custom emoji of the client. An emoji is
one of the sequences recommended for general interchange (RGI), stored fully qualified, so that ❤ and ❤️ are one kind.
See https://unicode.org/reports/tr51/.
"""

import re
from functools import cache

import emoji

from shared.errors import Refusal

_NAME = re.compile(r"^:[A-Za-z0-9_]{1,32}:\Z")
_VARIATION_SELECTOR = "\ufe0f"
_SEQUENCE_MAX = 40  # code points; the longest sequence has 10, and clients may add variation selectors


def reaction_emoji(text: str) -> str:
    """Return the emoji in its stored form. Raises VALIDATION."""
    if _NAME.match(text):
        return text
    found = _fully_qualified().get(text.replace(_VARIATION_SELECTOR, "")) if len(text) <= _SEQUENCE_MAX else None
    if found is None:
        raise Refusal.invalid("emoji", "must be one emoji, or a name such as :party_parrot:")
    return found


@cache
def _fully_qualified() -> dict[str, str]:
    """Return every RGI emoji by its form without variation selectors: 4,000 entries, made at the first reaction."""
    return {
        sequence.replace(_VARIATION_SELECTOR, ""): sequence
        for sequence, properties in emoji.EMOJI_DATA.items()
        if properties["status"] == emoji.STATUS["fully_qualified"]
    }
