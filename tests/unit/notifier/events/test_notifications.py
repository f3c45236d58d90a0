"""An event as clients see it: checked, and framed the same way live, replayed and over REST."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.events.audience import Listeners, Users
from notifier.events.notifications import (
    DATA_MAX_BYTES,
    Entry,
    Notice,
    address,
    entry_frame,
    entry_view,
    listeners_frame,
    notification_id,
)
from shared.bus.events import CloudEvent
from shared.errors import Malformed
from shared.times import to_iso

NOW_MS = 1_800_000_000_000
DATA = {"userId": "u", "title": "New Comment", "message": "John commented"}

json_objects = st.dictionaries(
    st.text(max_size=8),
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10) | st.lists(st.integers(0, 9)),
    max_size=5,
)


def event(type_: str, data: Any, **more: Any) -> CloudEvent:
    return CloudEvent(specversion="1.0", id=more.pop("id", "e"), source="/s", type=type_, data=data, **more)


def notice(type_: str, data: Any, **more: Any) -> Notice:
    return address(event(type_, data, **({"audience": "user:u"} | more)), NOW_MS).notice


def entry(of: Notice, user_id: str = "u", seq: int = 5, read_at_ms: int | None = None) -> Entry:
    return Entry(notification_id(of, user_id), of.key, user_id, seq, read_at_ms)


def shown(frame: bytes) -> dict[str, Any]:
    assert b"\n" not in frame
    assert b"\t" not in frame
    content = json.loads(frame)
    assert list(content) == ["type", "data"]
    return dict(content["data"], _type=content["type"])


def test_notification_matches_published_example() -> None:
    made = notice("notification.created", DATA | {"link": "/posts/1"})
    assert shown(entry_frame(made, entry(made))) == {
        "_type": "notification:new",
        "id": notification_id(made, "u"),
        "title": "New Comment",
        "message": "John commented",
        "priority": "medium",
        "createdAt": to_iso(NOW_MS),
        "seq": 5,
        "userId": "u",
        "link": "/posts/1",
    }


def test_inbox_fields_of_event_are_dropped() -> None:
    made = notice("notification.created", DATA | {"id": "mine", "seq": 99, "createdAt": "then"})
    data = shown(entry_frame(made, entry(made)))
    assert (data["id"], data["seq"], data["createdAt"]) == (notification_id(made, "u"), 5, to_iso(NOW_MS))
    passed_on = notice("order.filled", {"id": "order_1", "seq": 99})
    assert shown(entry_frame(passed_on, entry(passed_on))) == {"_type": "order:filled", "id": "order_1", "seq": 5}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"title": None}, "data.title: "),
        ({"title": 7}, "data.title: "),
        ({"message": ["m"]}, "data.message: "),
        ({"priority": "highest"}, "data.priority: "),
    ],
)
def test_wrong_notification_names_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Malformed) as malformed:
        notice("notification.created", DATA | changes)
    assert str(malformed.value).startswith(field)


@pytest.mark.parametrize("field", ["title", "message"])
def test_notification_without_title_is_refused(field: str) -> None:
    with pytest.raises(Malformed, match=f"^data.{field}: is missing"):
        notice("notification.created", {name: value for name, value in DATA.items() if name != field})


@pytest.mark.parametrize("priority", ["low", "medium", "high", "urgent"])
def test_all_priorities_are_accepted(priority: str) -> None:
    made = notice("notification.created", DATA | {"priority": priority})
    assert shown(entry_frame(made, entry(made)))["priority"] == priority


def test_oversized_data_is_refused() -> None:
    assert notice("a.b", {"text": "x" * (DATA_MAX_BYTES - 20)})
    with pytest.raises(Malformed, match=r"^data: is larger than"):
        notice("a.b", {"text": "x" * DATA_MAX_BYTES})


def test_listeners_receive_data_unchanged() -> None:
    addressed = address(event("post.created", {"communityId": "c", "seq": 3, "id": "p"}), NOW_MS)
    assert addressed.audience == Listeners("community:c")
    assert shown(listeners_frame(addressed.notice)) == {"_type": "post:created", "communityId": "c", "id": "p"}
    assert json.loads(listeners_frame(notice("a.b", {}, audience="all"))) == {"type": "a:b", "data": {}}


def test_notification_to_listeners_has_own_id() -> None:
    made = address(event("notification.created", {"title": "t", "message": "m"}, audience="all"), NOW_MS).notice
    data = shown(listeners_frame(made))
    assert data.pop("id").startswith("notif_")
    expected = {"title": "t", "message": "m", "priority": "medium", "createdAt": to_iso(NOW_MS)}
    assert data == expected | {"_type": "notification:new"}


def test_event_time_counts_unless_in_future() -> None:
    assert notice("a.b", {}, time="2025-10-21T12:00:00Z").created_at_ms == 1761048000000
    assert notice("a.b", {}, time="2099-01-01T00:00:00Z").created_at_ms == NOW_MS
    assert notice("a.b", {}, time="0001-01-01T00:00:00Z").created_at_ms == NOW_MS
    assert notice("a.b", {}).created_at_ms == NOW_MS


def test_notification_ids_are_stable_and_sort_by_time() -> None:
    early, late = notice("a.b", {}, time="2025-10-21T12:00:00Z"), notice("a.b", {}, id="f")
    assert notification_id(early, "u") == notification_id(notice("a.b", {}, time="2025-10-21T12:00:00Z"), "u")
    assert len({notification_id(early, "u"), notification_id(early, "v"), notification_id(late, "u")}) == 3
    assert notification_id(early, "u") < notification_id(late, "u")


@given(json_objects, st.integers(1, 2**53))
def test_every_frame_is_json_with_event_data(data: dict[str, Any], seq: int) -> None:
    passed_on = notice("a.b", data)
    expected = {name: value for name, value in data.items() if name != "seq"}
    assert json.loads(entry_frame(passed_on, entry(passed_on, seq=seq))) == {
        "type": "a:b",
        "data": expected | {"seq": seq},
    }
    assert json.loads(listeners_frame(passed_on)) == {"type": "a:b", "data": expected}


def test_rest_view_has_same_data_and_read_state() -> None:
    made = notice("notification.created", DATA)
    unread = entry_view(made, entry(made))
    assert json.loads(bytes(unread.data)) == json.loads(entry_frame(made, entry(made)))["data"]
    assert (unread.title, unread.message, unread.priority) == ("New Comment", "John commented", "medium")
    assert (unread.type, unread.seq, unread.read, unread.read_at) == ("notification:new", 5, False, None)
    read = entry_view(made, entry(made, read_at_ms=NOW_MS))
    assert (read.id, read.read, read.read_at) == (unread.id, True, to_iso(NOW_MS))


def test_rest_view_of_other_events_has_no_title() -> None:
    passed_on = notice("order.filled", {"title": "not a notification's", "orderId": "o"})
    view = entry_view(passed_on, entry(passed_on))
    assert (view.type, view.title, view.message) == ("order:filled", None, None)
    assert json.loads(bytes(view.data))["orderId"] == "o"


def test_event_to_users_is_addressed() -> None:
    assert address(event("notification.created", DATA), NOW_MS).audience == Users(("u",))
