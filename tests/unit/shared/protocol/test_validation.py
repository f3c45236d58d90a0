"""JSON in, typed struct out, or a refusal that names the field and the reason."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.encoding import to_json
from shared.errors import Detail, ErrorCode, Malformed, Refusal
from shared.protocol.validation import ClientMessageId, Id, MessageText, Seq, Symbol, convert, decode


class Inner(msgspec.Struct, rename="camel"):
    room_id: Id


class Body(msgspec.Struct, rename="camel"):
    user_id: Id | None = None
    text: MessageText | None = None
    client_id: ClientMessageId | None = None
    seq: Seq | None = None
    symbols: list[Symbol] = []
    inner: Inner | None = None


decoder = msgspec.json.Decoder(Body)


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
def test_a_wrong_field_is_named_with_its_path(body: object, field: str) -> None:
    refusal = refused(body)
    (detail,) = refusal.details
    assert detail.field == field
    assert refusal.message == f"{field}: {detail.reason}"


def test_reasons_are_plain_words() -> None:
    assert refused({"text": " \n "}).details == (Detail("text", "must not be blank"),)
    assert refused({"userId": "a/b"}).details == (Detail("userId", "is not an id"),)
    assert refused({"inner": {}}).details == (Detail("inner.roomId", "is missing"),)


def test_what_is_no_object_has_no_field() -> None:
    refusal = refused([])
    assert refusal.details[0].field == ""
    assert refusal.message == refusal.details[0].reason


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nope", b"{}{}", b'{"userId":"\xff"}', b'{"a":' + b"[" * 50_000, b'{"a":' * 50_000]
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="not valid JSON"):
        decode(body, decoder)


@given(st.binary())
def test_any_bytes_are_taken_refused_or_malformed(body: bytes) -> None:
    try:
        assert isinstance(decode(body, decoder), Body)
    except (Refusal, Malformed) as error:
        assert str(error)


@given(st.text())
def test_any_text_is_taken_refused_or_malformed(body: str) -> None:
    try:
        assert isinstance(decode(body, decoder), Body)
    except (Refusal, Malformed) as error:
        assert str(error)


ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:@|=+~-"


@given(st.text(max_size=140) | st.text(ID_ALPHABET, max_size=140))
def test_an_id_is_1_to_128_harmless_characters(text: str) -> None:
    expected = 1 <= len(text) <= 128 and set(text) <= set(ID_ALPHABET)
    try:
        msgspec.convert(text, Id)
        taken = True
    except msgspec.ValidationError:
        taken = False
    assert taken is expected


@pytest.mark.parametrize("end", ["\n", "\r", "\t", ",", "/", " ", "\x00", "é"])
def test_an_id_never_ends_a_line_a_list_or_a_path(end: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(f"user_1{end}", Id)


@given(st.text(min_size=1))
def test_a_message_needs_something_to_see(text: str) -> None:
    try:
        msgspec.convert(text, MessageText)
        taken = True
    except msgspec.ValidationError:
        taken = False
    assert taken is bool(text.strip())


class ValidatedQuery(msgspec.Struct):
    page: int = 1
    flag: bool = False


def test_numbers_are_read_from_text() -> None:
    assert convert({"page": "12"}, ValidatedQuery).page == 12


@pytest.mark.parametrize("page", ["", "x", "1.5", "9" * 5000, " 1", "²", "0x1"])
def test_text_that_is_no_number_is_refused_by_name(page: str) -> None:
    with pytest.raises(Refusal) as caught:
        convert({"page": page}, ValidatedQuery)
    assert caught.value.details[0].field == "page"


@given(st.text())
def test_any_parameter_is_taken_or_refused(page: str) -> None:
    try:
        convert({"page": page}, ValidatedQuery)
    except Refusal as refusal:
        assert refusal.details[0].field == "page"
