"""The deliveries of an entry: one lossless delivery under its rev, and what gateways have to do."""

import json
from typing import Any

import msgspec
import pytest

from chat_service.rooms.entry_deliveries import (
    controls_of,
    deliveries_of,
    frame_of,
    joined_frames_of,
    own_deliveries_of,
)
from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect, RoomSettings, void_at
from chat_service.rooms.message import Message, message_frame
from chat_service.rooms.room import RoomType
from shared.bus.delivery import ControlKind, Delivery, DeliveryKind, room_channel, user_channel
from shared.protocol.server_frames import UserProfile

ROOM = "room_1"
BEN = MemberEffect(user_id="ben", is_joined=True, is_invited=True, profile=UserProfile(first_name="Ben"))
CAT = MemberEffect(user_id="cat", is_joined=True, is_invited=True)
STRANGER = MemberEffect(user_id="ben")
INVITED = MemberEffect(user_id="ben", is_invited=True)
SETTINGS = RoomSettings(name="Gold", description="", type=RoomType.PRIVATE, created_by="ann", created_at_ms=1)
MESSAGE = Message(
    id="cmd_1",
    room_id=ROOM,
    seq=4,
    rev=7,
    user_id="ben",
    user=UserProfile(),
    text="hi",
    client_message_id=None,
    created_at_ms=1,
)


def entry(kind: EntryKind, **fields: Any) -> LogEntry:
    return LogEntry(
        id="cmd_1",
        room_id=ROOM,
        rev=7,
        kind=kind,
        term=1,
        author_id="ann",
        at_ms=1,
        last_seq=4,
        member_count=3,
        **fields,
    )


def shown(frame_bytes: bytes) -> tuple[str, dict[str, Any]]:
    decoded = json.loads(frame_bytes)
    return decoded["type"], decoded["data"]


ENTRIES = [
    entry(EntryKind.MESSAGE, message=MESSAGE),
    entry(EntryKind.MESSAGE, message=MESSAGE, members=(BEN,)),
    entry(EntryKind.CREATED, settings=SETTINGS, members=(BEN, CAT)),
    entry(EntryKind.UPDATED, settings=SETTINGS),
    entry(EntryKind.UPDATED, settings=SETTINGS, ends_public=True),
    entry(EntryKind.DELETED, settings=SETTINGS),
    entry(EntryKind.JOINED, members=(BEN,)),
    entry(EntryKind.ADDED, members=(BEN,)),
    entry(EntryKind.ADDED, members=(BEN,), settings=SETTINGS),
    entry(EntryKind.ROLE, members=(BEN, CAT), settings=SETTINGS),
    entry(EntryKind.LEFT, members=(INVITED,)),
    entry(EntryKind.LEFT, members=(INVITED, CAT), settings=SETTINGS),
    entry(EntryKind.REMOVED, members=(STRANGER,)),
    void_at(ROOM, 7, 1, 1),
]


@pytest.mark.parametrize("kind", [EntryKind.MESSAGE, EntryKind.REACTED])
def test_gap_fills_show_the_members_that_live_lines_show(kind: EntryKind) -> None:
    one = entry(kind, message=MESSAGE, members=(BEN, CAT))
    live = [delivery.frame for delivery in deliveries_of(one, None) if delivery.kind is DeliveryKind.UNORDERED]
    assert joined_frames_of(one) == live
    assert [shown(frame)[1]["userId"] for frame in live] == ["ben", "cat"]


def test_first_message_of_a_direct_room_shows_no_new_members() -> None:
    direct = msgspec.structs.replace(SETTINGS, direct=("ann", "ben"))
    assert joined_frames_of(entry(EntryKind.MESSAGE, message=MESSAGE, members=(BEN, CAT), settings=direct)) == []


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.kind.value)
def test_exactly_one_ordered_line_carries_rev_and_frame(one: LogEntry) -> None:
    deliveries = deliveries_of(one, None)
    ordered = [delivery for delivery in deliveries if delivery.kind is DeliveryKind.ORDERED]
    assert ordered == [Delivery(room_channel(ROOM), DeliveryKind.ORDERED, 7, "", frame_of(one))]
    others = [delivery for delivery in deliveries if delivery.channel != room_channel(ROOM)]
    assert {delivery.kind for delivery in others} <= {DeliveryKind.UNORDERED, DeliveryKind.CONTROL}


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.kind.value)
def test_direct_room_delivers_to_its_two_users_only(one: LogEntry) -> None:
    assert deliveries_of(one, ("ann", "ben")) == [
        Delivery(user_channel(user_id), DeliveryKind.DIRECT, 7, ROOM, frame_of(one)) for user_id in ("ann", "ben")
    ]


def test_message_by_which_its_sender_joins_shows_the_member_first() -> None:
    first, message = deliveries_of(entry(EntryKind.MESSAGE, message=MESSAGE, members=(BEN,)), None)
    assert (first.kind, first.position, first.key) == (DeliveryKind.UNORDERED, 0, "7/0")
    assert shown(first.frame)[0] == "member:joined"
    assert message.frame == message_frame(MESSAGE)


@pytest.mark.parametrize(
    ("one", "name", "some"),
    [
        (entry(EntryKind.JOINED, members=(BEN,)), "member:joined", {"userId": "ben", "memberCount": 3}),
        (entry(EntryKind.ADDED, members=(BEN,)), "member:joined", {"userId": "ben", "memberCount": 3}),
        (entry(EntryKind.LEFT, members=(INVITED,)), "member:left", {"userId": "ben", "memberCount": 3}),
        (entry(EntryKind.LEFT, members=(INVITED, CAT)), "member:left", {"userId": "ben", "memberCount": 3}),
        (entry(EntryKind.REMOVED, members=(STRANGER,)), "member:left", {"userId": "ben", "memberCount": 3}),
        (entry(EntryKind.UPDATED, settings=SETTINGS), "chatroom:updated", {"name": "Gold", "type": "private"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_change_of_the_room_is_shown_to_clients(one: LogEntry, name: str, some: dict[str, Any]) -> None:
    kind, data = shown(frame_of(one))
    assert kind == name
    assert data["chatroomId"] == ROOM
    assert some.items() <= data.items()


@pytest.mark.parametrize(
    "one",
    [
        void_at(ROOM, 7, 1, 1),
        entry(EntryKind.CREATED, settings=SETTINGS, members=(BEN,)),
        entry(EntryKind.DELETED, settings=SETTINGS),
        entry(EntryKind.ROLE, members=(BEN, CAT), settings=SETTINGS),
    ],
    ids=lambda one: one.kind.value,
)
def test_entry_that_clients_are_not_shown_has_no_frame(one: LogEntry) -> None:
    assert frame_of(one) == b""


@pytest.mark.parametrize(
    ("one", "controls"),
    [
        (
            entry(EntryKind.REMOVED, members=(STRANGER, CAT)),
            [(ControlKind.EVICT, b'{"userId":"ben","reason":"removed"}')],
        ),
        (entry(EntryKind.LEFT, members=(INVITED, CAT)), [(ControlKind.EVICT, b'{"userId":"ben"}')]),
        (entry(EntryKind.LEFT, members=(STRANGER,)), []),  # of a public room: anyone may listen
        (entry(EntryKind.UPDATED, settings=SETTINGS, ends_public=True), [(ControlKind.RECHECK, b"{}")]),
        (entry(EntryKind.UPDATED, settings=SETTINGS), []),
        (entry(EntryKind.DELETED, settings=SETTINGS), [(ControlKind.ROOM_DELETED, b"{}")]),
        (entry(EntryKind.MESSAGE, message=MESSAGE, members=(BEN,)), []),
    ],
)
def test_end_of_access_is_announced_to_gateways(one: LogEntry, controls: list[tuple[ControlKind, bytes]]) -> None:
    assert controls_of(one) == controls
    *before, shown_last = (one for one in deliveries_of(one, None) if one.channel == room_channel(ROOM))
    expected = [Delivery(room_channel(ROOM), DeliveryKind.CONTROL, 7, *control) for control in controls]
    assert [delivery for delivery in before if delivery.kind is DeliveryKind.CONTROL] == expected
    assert shown_last.kind is DeliveryKind.ORDERED, "a gateway must know of the control before it shows the entry"


@pytest.mark.parametrize(
    ("one", "invited"),
    [
        (entry(EntryKind.CREATED, settings=SETTINGS, members=(MemberEffect(user_id="ann"), BEN, CAT)), ["ben", "cat"]),
        (entry(EntryKind.ADDED, settings=SETTINGS, members=(BEN, CAT)), ["ben"]),
        (entry(EntryKind.ADDED, members=(BEN,)), []),  # of an earlier version
        (entry(EntryKind.JOINED, members=(BEN,)), []),
        (entry(EntryKind.ROLE, settings=SETTINGS, members=(BEN, CAT)), []),
    ],
)
def test_invitation_goes_to_the_invited_alone(one: LogEntry, invited: list[str]) -> None:
    own = own_deliveries_of(one)
    assert [delivery.channel for delivery in own] == [user_channel(user_id) for user_id in invited]
    for delivery in own:
        assert (delivery.kind, delivery.key) == (DeliveryKind.UNORDERED, f"{ROOM}/7")
        data = {"chatroomId": ROOM, "name": "Gold", "type": "private", "by": "ann"}
        assert shown(delivery.frame) == ("member:invited", data)


def test_removal_goes_to_every_socket_of_the_user_before_the_room() -> None:
    own, *_ = deliveries_of(entry(EntryKind.REMOVED, members=(STRANGER,)), None)
    data = b'{"userId":"ben","chatroomId":"room_1","reason":"removed"}'
    assert own == Delivery(user_channel("ben"), DeliveryKind.CONTROL, 7, ControlKind.EVICT, data)


def test_direct_message_follows_head_of_the_one_before() -> None:
    second = entry(EntryKind.MESSAGE, message=MESSAGE, previous_at_ms=5)
    deliveries = deliveries_of(second, ("ann", "ben"))
    heads, messages = deliveries[:2], deliveries[2:]
    assert heads == [Delivery(user_channel(user), DeliveryKind.DIRECT_HEAD, 6, ROOM, b"5") for user in ("ann", "ben")]
    assert [(delivery.kind, delivery.position) for delivery in messages] == [(DeliveryKind.DIRECT, 7)] * 2


def test_first_direct_message_follows_no_head() -> None:
    deliveries = deliveries_of(entry(EntryKind.MESSAGE, message=MESSAGE), ("ann", "ben"))
    assert [delivery.kind for delivery in deliveries] == [DeliveryKind.DIRECT] * 2
