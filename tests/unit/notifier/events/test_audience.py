"""The audience of an event."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.events.audience import USERS_MAX, Listeners, Users, audience_of, parse_audience
from shared.bus.events import CloudEvent
from shared.errors import Malformed

ids = st.from_regex(r"[A-Za-z0-9_.:@|=+~-]{1,20}", fullmatch=True)


def event(type_: str, data: dict[str, Any] | None = None, audience: str | None = None) -> CloudEvent:
    return CloudEvent(specversion="1.0", id="e", source="/s", type=type_, data=data or {}, audience=audience)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", Listeners("all")),
        ("room:room_1", Listeners("room:room_1")),
        ("community:c", Listeners("community:c")),
        ("user:u", Users(("u",))),
        ("user:auth0|u:1", Users(("auth0|u:1",))),
        ("users:u", Users(("u",))),
        ("users:b,a,b", Users(("b", "a"))),
        ("user:corp/ada, José", Users(("corp/ada, José",))),
        ("users:corp%2Fada,a%2Cb,José,50%25", Users(("corp/ada", "a,b", "José", "50%"))),
        ("community:Forex, and more", Listeners("community:Forex, and more")),
    ],
)
def test_audiences_of_the_contract(text: str, expected: Users | Listeners) -> None:
    assert parse_audience(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "all:", "all:x", "ALL", "user", "user:", "users:", "users:a,,b", "users:a, b", "user:a\n", "user:me", "room:",
     "room:a/b", "community:", "community:a\tb", "team:x", "user:" + "a" * 129, "user:system:x", "users:a%0A,b",
     "users:%FF", "user:deleted-user"],
)  # fmt: skip
def test_other_audiences_are_malformed(text: str) -> None:
    with pytest.raises(Malformed, match=r"^audience: "):
        parse_audience(text)


def test_audience_is_limited_to_ten_thousand_users() -> None:
    names = [f"u{number}" for number in range(USERS_MAX + 1)]
    assert parse_audience("users:" + ",".join(names[:-1])) == Users(tuple(names[:-1]))
    with pytest.raises(Malformed, match="10001 users"):
        parse_audience("users:" + ",".join(names))


@given(st.lists(ids, min_size=1, max_size=20))
def test_user_list_is_unique_and_ordered(names: list[str]) -> None:
    assert parse_audience("users:" + ",".join(names)) == Users(tuple(dict.fromkeys(names)))


@given(st.text())
def test_any_text_is_an_audience_or_malformed(text: str) -> None:
    try:
        audience = parse_audience(text)
    except Malformed:
        return
    named = audience.ids if isinstance(audience, Users) else (audience.channel,)
    assert all("\t" not in name and "\n" not in name for name in named)


@pytest.mark.parametrize(
    ("given_event", "expected"),
    [
        (event("post.created", {"communityId": "c"}), Listeners("community:c")),
        (event("notification.created", {"userId": "u"}), Users(("u",))),
        (event("trade.created"), Listeners("all")),
        (event("session.started"), Listeners("all")),
        (event("session.ended"), Listeners("all")),
        (event("post.created", {"communityId": "c"}, "room:r"), Listeners("room:r")),
        (event("notification.created", {}, "users:a,b"), Users(("a", "b"))),
        (event("order.filled", {}, "user:u"), Users(("u",))),
    ],
)
def test_named_audience_overrides_default_of_type(given_event: CloudEvent, expected: Users | Listeners) -> None:
    assert audience_of(given_event) == expected


@pytest.mark.parametrize(
    ("given_event", "expected"),
    [
        (event("order.filled"), "audience: is missing, and order.filled has no default"),
        (event("post.created"), "data.communityId: is missing, and there is no audience"),
        (event("post.created", {"communityId": 7}), "data.communityId: is not an id, and there is no audience"),
        (event("notification.created", {"userId": " a"}), "data.userId: is not an id, and there is no audience"),
        (event("notification.created", {"userId": "a\n"}), "data.userId: is not an id, and there is no audience"),
    ],
)
def test_missing_audience_is_refused_with_reason(given_event: CloudEvent, expected: str) -> None:
    with pytest.raises(Malformed) as malformed:
        audience_of(given_event)
    assert str(malformed.value) == expected
