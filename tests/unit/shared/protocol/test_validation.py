"""JSON in, a typed struct out, or a refusal that names the field and the reason."""

import unicodedata
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.encoding import to_json
from shared.errors import Detail, ErrorCode, Malformed, Refusal
from shared.protocol.validation import (
    VISIBLE_PATTERN,
    ClientMessageId,
    Id,
    Seq,
    Symbol,
    UserId,
    convert,
    decode,
    detail_of,
)

VisibleText = Annotated[str, msgspec.Meta(min_length=1, pattern=VISIBLE_PATTERN)]


class Inner(msgspec.Struct, rename="camel"):
    room_id: Id


class ValidatedBody(msgspec.Struct, rename="camel"):
    user_id: Id | None = None
    text: VisibleText | None = None
    client_id: ClientMessageId | None = None
    seq: Seq | None = None
    symbols: list[Symbol] = []
    inner: Inner | None = None


decoder = msgspec.json.Decoder(ValidatedBody)


def refused(body: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decode(to_json(body), decoder)
    assert caught.value.code is ErrorCode.VALIDATION
    return caught.value


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"userId": 5}, "userId"),
        ({"userId": "a b"}, "userId"),
        ({"text": ""}, "text"),
        ({"clientId": "x" * 129}, "clientId"),
        ({"seq": -1}, "seq"),
        ({"seq": 2**53 + 1}, "seq"),
        ({"seq": 1.5}, "seq"),
        ({"symbols": ["EUR/USD", 5]}, "symbols[1]"),
        ({"symbols": ["x" * 33]}, "symbols[0]"),
        ({"inner": {}}, "inner.roomId"),
        ({"inner": {"roomId": ""}}, "inner.roomId"),
    ],
)
def test_wrong_field_is_named_with_path(body: object, field: str) -> None:
    refusal = refused(body)
    (detail,) = refusal.details
    assert detail.field == field
    assert refusal.message == f"{field}: {detail.reason}"


def test_reasons_are_readable() -> None:
    assert refused({"text": " \n "}).details == (Detail("text", "must not be blank"),)
    assert refused({"userId": "a/b"}).details == (Detail("userId", "is not an id"),)
    assert refused({"inner": {}}).details == (Detail("inner.roomId", "is missing"),)


def test_non_object_error_has_no_field() -> None:
    refusal = refused([])
    assert refusal.details[0].field == ""
    assert refusal.message == refusal.details[0].reason


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nope", b"{}{}", b'{"userId":"\xff"}', b'{"a":' + b"[" * 50_000, b'{"a":' * 50_000]
)
def test_invalid_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="not valid JSON"):
        decode(body, decoder)


@given(st.binary())
def test_any_bytes_are_accepted_refused_or_malformed(body: bytes) -> None:
    try:
        assert isinstance(decode(body, decoder), ValidatedBody)
    except (Refusal, Malformed) as error:
        assert str(error)


@given(st.text())
def test_any_text_is_accepted_refused_or_malformed(body: str) -> None:
    try:
        assert isinstance(decode(body, decoder), ValidatedBody)
    except (Refusal, Malformed) as error:
        assert str(error)


ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:@|=+~-"


@given(st.text(max_size=140) | st.text(ID_ALPHABET, max_size=140))
def test_id_has_1_to_128_safe_characters(text: str) -> None:
    expected = 1 <= len(text) <= 128 and set(text) <= set(ID_ALPHABET)
    try:
        msgspec.convert(text, Id)
        taken = True
    except msgspec.ValidationError:
        taken = False
    assert taken is expected


USER_IDS = st.text(st.sampled_from("a/,%@|'é \u00a0\t\n\x7f\x85\U0001f600"), max_size=130) | st.text(max_size=130)


@given(USER_IDS)
def test_user_id_has_1_to_128_characters_without_controls_and_outer_blanks(text: str) -> None:
    has_control = any(unicodedata.category(char) in ("Cc", "Cs") for char in text)
    is_reserved = text in ("me", "deleted-user") or text.startswith("system:")
    trimmed = text.strip().strip("\ufeff")
    expected = 1 <= len(text) <= 128 and not has_control and not is_reserved and trimmed == text
    try:
        msgspec.convert(text, UserId)
        taken = True
    except msgspec.ValidationError:
        taken = False
    assert taken is expected


@pytest.mark.parametrize("text", ["me", "deleted-user", "system:gateway", "system:"])
def test_reserved_user_id_belongs_to_nobody(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, UserId)
    assert msgspec.convert(f"{text}-2" if ":" not in text else f"eco{text}", UserId)


@pytest.mark.parametrize("end", ["\n", "\r", "\t", ",", "/", " ", "\x00", "é"])
def test_id_never_contains_separators(end: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(f"user_1{end}", Id)


@given(st.text(min_size=1))
def test_blank_message_is_refused(text: str) -> None:
    try:
        msgspec.convert(text, VisibleText)
        taken = True
    except msgspec.ValidationError:
        taken = False
    if any(char.isalnum() and char not in HANGUL_FILLERS for char in text):
        assert taken
    if not text.strip():
        assert not taken


HANGUL_FILLERS = "\u115f\u1160\u3164\uffa0"
INVISIBLE = "\u3000\u200b\u2800\ufeff\u00ad\x00\u200d\u2060\ufe0f\u034f\U000e0020\x85\x1c" + HANGUL_FILLERS


@pytest.mark.parametrize("char", INVISIBLE, ids=lambda char: f"U+{ord(char):04X}")
def test_text_of_invisible_characters_is_blank(char: str) -> None:
    for text in (char, f" {char}\n{char}", INVISIBLE):
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.convert(text, VisibleText)
        assert detail_of(caught.value).reason == "must not be blank"
    assert msgspec.convert(f"{char}x{char}", VisibleText)


@pytest.mark.parametrize(
    "text", [".", "\u0301", "\u0627", "\u0600", "\U0001f600", "\u2764\ufe0f", "\u3042", "\u0939\u093f"]
)
def test_visible_text_is_taken(text: str) -> None:
    assert msgspec.convert(text, VisibleText) == text


class ValidatedQuery(msgspec.Struct):
    page: int = 1
    flag: bool = False


def test_numbers_are_parsed_from_text() -> None:
    assert convert({"page": "12"}, ValidatedQuery).page == 12


@pytest.mark.parametrize("page", ["", "x", "1.5", "9" * 5000, " 1", "²", "0x1"])
def test_non_numeric_text_names_field(page: str) -> None:
    with pytest.raises(Refusal) as caught:
        convert({"page": page}, ValidatedQuery)
    assert caught.value.details[0].field == "page"


@given(st.text())
def test_any_parameter_is_accepted_or_refused(page: str) -> None:
    try:
        convert({"page": page}, ValidatedQuery)
    except Refusal as refusal:
        assert refusal.details[0].field == "page"
