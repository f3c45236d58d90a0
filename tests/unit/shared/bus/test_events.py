"""CloudEvents: valid ones, invalid ones with the reason, and the split of bodies."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.events import CloudEvent, client_type, decode_event, event_key, event_time_ms, split_events
from shared.errors import Malformed

GOOD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "evt_1",
    "source": "/services/posts",
    "type": "post.created",
    "time": "2025-10-21T12:00:00.000Z",
    "audience": "community:community_789",
    "data": {"postId": "post_123"},
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def body(**changes: Any) -> bytes:
    event = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    return json.dumps(event).encode()


def reason(body: bytes) -> str:
    with pytest.raises(Malformed) as malformed:
        decode_event(body)
    return str(malformed.value)


def test_documented_example_is_an_event() -> None:
    event = decode_event(body())
    assert event == CloudEvent(**GOOD)
    assert event_time_ms(event) == 1761048000000


def test_unknown_attributes_are_ignored() -> None:
    assert decode_event(body(datacontenttype="application/json", subject="x", traceparent=5)).id == "evt_1"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"specversion": ...}, "specversion: is missing"),
        ({"specversion": "0.3"}, "specversion: "),
        ({"id": ...}, "id: is missing"),
        ({"id": ""}, "id: "),
        ({"id": 7}, "id: "),
        ({"source": ""}, "source: "),
        ({"type": "post"}, "type: "),
        ({"type": "post.created\n"}, "type: "),
        ({"type": "post..created"}, "type: "),
        ({"data": ...}, "data: is missing"),
        ({"data": "text"}, "data: "),
        ({"data": [{}]}, "data: must be an object"),
        ({"data": {"n": 2**70}}, "data: "),
        ({"time": "yesterday"}, "time: is not an RFC 3339 time with an offset"),
        ({"time": "2025-10-21T12:00:00"}, "time: is not an RFC 3339 time with an offset"),
        ({"time": 1761048000}, "time: "),
        ({"audience": ["user:u"]}, "audience: "),
    ],
)
def test_invalid_event_names_field_and_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason(body(**changes)).startswith(expected)


@pytest.mark.parametrize("bad", [b"", b"garbage", b"[]", b'"text"', b'{"id":', b"\xff\xfe", b"[" * 100_000, b"null"])
def test_non_object_is_refused(bad: bytes) -> None:
    assert reason(bad)


def test_tick_event_may_hold_array() -> None:
    assert decode_event(body(type="market.tick", data=[{"symbol": "A", "price": 1}])).data == [
        {"symbol": "A", "price": 1}
    ]


@pytest.mark.parametrize(
    "time", ["2025-10-21t12:00:00z", "2025-10-21T14:00:00+02:00", "2025-10-21T12:00:00.000000000Z"]
)
def test_every_rfc_3339_form_is_parsed(time: str) -> None:
    assert event_time_ms(decode_event(body(time=time))) == 1761048000000


@given(st.binary())
def test_any_bytes_are_an_event_or_malformed(data: bytes) -> None:
    try:
        decode_event(data)
    except Malformed as malformed:
        assert str(malformed)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5))
def test_data_passes_unchanged(data: dict[str, Any]) -> None:
    assert decode_event(body(data=data)).data == data


def test_event_key_combines_source_and_id() -> None:
    def key(source: str, id_: str) -> str:
        return event_key(decode_event(body(source=source, id=id_)))

    assert key("/a", "b") == key("/a", "b")
    assert len({key("/a", "b"), key("/b", "a"), key("/ab", "c"), key("/a", "bc"), key('/a","b', "c")}) == 5
    assert all(character in "0123456789abcdef" for character in key("/a\t\n", "b\t"))


# Bodies -------------------------------------------------------------------------------------------------------------


def test_body_is_one_event_in_any_layout() -> None:
    pretty = json.dumps(GOOD, indent=2).encode()
    assert split_events(pretty) == [pretty]
    assert split_events(body()) == [body()]
    assert [decode_event(one).id for one in split_events(body() + b"\n")] == ["evt_1"]


def test_body_of_lines_is_one_event_per_line() -> None:
    assert split_events(b"\n".join([body(id="a"), b"", body(id="b")]) + b"\n") == [body(id="a"), body(id="b")]


def test_bad_line_is_split_from_good_ones() -> None:
    assert split_events(b"\n".join([b"garbage", body(id="b")])) == [b"garbage", body(id="b")]
    assert split_events(b"\n".join([body(id="a"), b"garbage"])) == [body(id="a"), b"garbage"]


@pytest.mark.parametrize("cut", [30, 60, 120])
def test_broken_multiline_body_stays_whole(cut: int) -> None:
    broken = json.dumps(GOOD, indent=2).encode()[:cut]
    assert split_events(broken) == [broken]


@given(st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=3), min_size=1, max_size=5))
def test_split_reverses_join(values: list[dict[str, Any]]) -> None:
    lines = [json.dumps(value).encode() for value in values]
    assert split_events(b"\n".join(lines)) == lines


@given(st.binary())
def test_body_is_whole_or_split_at_line_ends(data: bytes) -> None:
    assert split_events(data) in ([data], [line for line in data.split(b"\n") if line.strip()])


@pytest.mark.parametrize(
    ("event_type", "expected"),
    [
        ("post.created", "post:created"),
        ("notification.created", "notification:new"),
        ("session.ended", "session:ended"),
        ("a.b.c", "a:b:c"),
    ],
)
def test_client_type_of_event_type(event_type: str, expected: str) -> None:
    assert client_type(event_type) == expected
