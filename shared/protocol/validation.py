"""Validation: JSON in, a typed struct or a Refusal (field and reason) out. Also the shared field types."""

import re
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec

from shared.errors import Detail, ErrorCode, Malformed, Refusal

T = TypeVar("T")

# The syntax of ids that this system creates.
ID_PATTERN = r"^[A-Za-z0-9_.:@|=+~-]{1,128}\Z"

# The syntax of ids that others create: token issuers, internal services. No control characters (delivery lines are
# separated by tabs and line feeds), no blanks at either end (settings and lists are trimmed), no surrogates (UTF-8
# cannot represent them).
FOREIGN_ID_PATTERN = r"^(?![\s\ufeff])[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}(?<![\s\ufeff])\Z"

# `me` is the caller in paths, `deleted-user` the author of an erased user's messages, `system:…` the system itself.
USER_ID_PATTERN = r"^(?!(?:me|deleted-user)\Z|system:)" + FOREIGN_ID_PATTERN.removeprefix("^")
SHOWN_USER_ID_PATTERN = r"^(?!me\Z|system:)" + FOREIGN_ID_PATTERN.removeprefix("^")

# A character that shows: no white space, no control or format character, and none that is ignored or drawn blank, such
# as the Hangul fillers and the empty Braille pattern. Sources: White_Space, Default_Ignorable_Code_Point of Unicode.
VISIBLE_PATTERN = (
    r"[^\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

# The syntax of symbols, tickers of exchanges among them: no white space, comma (lists of symbols) or control character.
SYMBOL_PATTERN = r"^[A-Za-z0-9._/:=^&!#$+-]{1,32}\Z"

NAME_MAX = 200
AVATAR_MAX = 2000

Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
UserId = Annotated[str, msgspec.Meta(pattern=USER_ID_PATTERN)]
# As UserId, and `deleted-user`, which messages of erased users show.
ShownUserId = Annotated[str, msgspec.Meta(pattern=SHOWN_USER_ID_PATTERN)]
CommunityId = Annotated[str, msgspec.Meta(pattern=FOREIGN_ID_PATTERN)]
Symbol = Annotated[str, msgspec.Meta(pattern=SYMBOL_PATTERN)]
ClientMessageId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
FrameId = str | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float  # anything that JSON can echo


def shown_name(text: str) -> str:
    """Return a first or last name to show, truncated to NAME_MAX."""
    return text[:NAME_MAX]


def shown_avatar(text: str) -> str | None:
    """Return the URL of a picture to show; None if empty or longer than AVATAR_MAX (a truncated URL is useless)."""
    return text if 0 < len(text) <= AVATAR_MAX else None


def is_symbol(text: str) -> bool:
    """Return whether a text is a valid symbol: 1 to 32 letters, digits and . - _ / : = ^ & ! # $ +."""
    return _SYMBOL.match(text) is not None


def percent_decoded(text: str) -> str:
    """Decode an element of a comma-separated list. Bytes that are not UTF-8 become surrogates, which no id has."""
    return unquote(text, errors="surrogateescape")


def one_of(*words: str) -> msgspec.Meta:
    """Return the allowed values of an outgoing text, for the API documents only."""
    return msgspec.Meta(extra_json_schema={"enum": list(words)})


# Outgoing fields are documented but not validated.
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]  # UTC, milliseconds, Z
OnlineStatus = Annotated[str, one_of("online", "offline")]

_SYMBOL = re.compile(SYMBOL_PATTERN)
_AT_PATH = re.compile(r"^(?P<reason>.*) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`")
_NO_ID = "is not an id"
# No object has a malformed id, so in these fields a malformed id is answered NOT_FOUND, like an unknown one, as in
# paths.
_NAMED_BY_ID = {"chatroomId": "room", "messageId": "message", "replyTo": "message", "before": "message"}
_PLAIN_REASONS = {
    f"Expected `str` matching regex {VISIBLE_PATTERN!r}": "must not be blank",
    f"Expected `str` matching regex {ID_PATTERN!r}": _NO_ID,
    f"Expected `str` matching regex {FOREIGN_ID_PATTERN!r}": "is not an id",
    f"Expected `str` matching regex {USER_ID_PATTERN!r}": "is not a user id, or is reserved",
    f"Expected `str` matching regex {SHOWN_USER_ID_PATTERN!r}": "is not a user id, or is reserved",
    f"Expected `str` matching regex {SYMBOL_PATTERN!r}": "is not a symbol",
}


def detail_of(error: msgspec.ValidationError) -> Detail:
    """Return the field (a path such as `symbols[2]`, or `` for the whole) and the reason in msgspec's message."""
    text = str(error)
    path = ""
    if match := _AT_PATH.match(text):
        text, path = match["reason"], match["path"]
    if match := _MISSING.match(text):
        return Detail(f"{path}.{match['field']}".lstrip("."), "is missing")
    return Detail(path, _PLAIN_REASONS.get(text, text[:1].lower() + text[1:]))


def refusal_of(error: msgspec.ValidationError) -> Refusal:
    """Return a VALIDATION refusal with one detail, or NOT_FOUND for a malformed room or message id."""
    detail = detail_of(error)
    if detail.reason == _NO_ID and (what := _NAMED_BY_ID.get(detail.field)) is not None:
        return Refusal.not_found(what)
    message = f"{detail.field}: {detail.reason}" if detail.field else detail.reason
    return Refusal(ErrorCode.VALIDATION, message, details=[detail])


def decode(body: bytes | str, decoder: "msgspec.json.Decoder[T]") -> T:
    """Decode JSON. Raises Malformed for text that is not JSON, and Refusal for a wrong field.

    The code is VALIDATION, or NOT_FOUND for a malformed room or message id. On hostile input msgspec raises three kinds
    of error besides ValidationError; all are caught here.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise refusal_of(error) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Malformed(f"not valid JSON: {error}") from error
    except RecursionError as error:
        raise Malformed("not valid JSON: nested too deeply") from error


def convert(value: Any, kind: type[T]) -> T:
    """Check values that arrived as text (a query string), numbers among them. Raises Refusal."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refusal_of(error) from error
