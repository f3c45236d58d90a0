"""The announcements of users' presence: content and recipients."""

import json

from chat_service.people.announcements import USERS_MAX, BatchSize, RoomAudience, announce, count_delivery
from chat_service.people.presence_record import PresenceRecord
from chat_service.rooms.room import Membership


def record(user_id: str, *, is_online: bool, announced: bool | None = None) -> PresenceRecord:
    return PresenceRecord(
        user_id=user_id,
        is_online=is_online,
        announced_online=announced,
        last_seen_at_ms=None if is_online else 1_700_000_000_000,
        unannounced_since_ms=1,
    )


RECORDS = {"ann": record("ann", is_online=True), "ben": record("ben", is_online=False)}


def test_members_are_announced_to_their_room_and_partners() -> None:
    memberships = [Membership("room_1", "ann", False), Membership("room_1", "ben", True)]
    memberships += [Membership("room_d", "ann", False)]
    rooms = {"room_1": RoomAudience(2), "room_d": RoomAudience(2, ("ann", "cat"))}
    announcement = announce(memberships, RECORDS, rooms, 500)
    sent = [(delivery.channel, json.loads(delivery.frame)["type"]) for delivery in announcement.deliveries]
    assert sent == [("room:room_1", "user:online"), ("room:room_1", "user:offline"), ("user:cat", "user:online")]
    assert announcement.large_rooms == set()


def test_large_room_gets_no_frame_of_a_member() -> None:
    rooms = {"room_1": RoomAudience(500), "room_2": RoomAudience(501)}
    memberships = [Membership("room_1", "ann", False), Membership("room_2", "ann", False)]
    announcement = announce(memberships, RECORDS, rooms, 500)
    assert [delivery.channel for delivery in announcement.deliveries] == ["room:room_1"]
    assert announcement.large_rooms == {"room_2"}
    assert announcement.flags[True] == memberships


def test_correct_marks_are_not_written_again() -> None:
    memberships = [Membership("room_1", "ann", True), Membership("room_2", "ann", False)]
    assert announce(memberships, RECORDS, {}, 500).flags == {True: [memberships[1]], False: []}


def test_count_frame_names_room_and_members_online() -> None:
    delivery = count_delivery("room_1", 612)
    assert json.loads(delivery.frame) == {"type": "room:presence", "data": {"chatroomId": "room_1", "activeNow": 612}}
    assert delivery.channel == "room:room_1"


def test_change_is_announced_unless_the_rooms_know_it() -> None:
    assert not record("ann", is_online=True, announced=True).is_changed
    assert record("ann", is_online=False, announced=True).is_changed
    assert record("ann", is_online=False, announced=None).is_changed  # an announcement may have been sent


def test_batches_shrink_for_members_of_many_rooms_and_grow_again() -> None:
    size = BatchSize()
    size.shrink(500, 6)
    assert size.users == 5
    size.halve()
    size.halve()
    size.halve()
    assert size.users == 1
    size.shrink(1, 1)
    assert size.users == 1
    size.note_done(1900, 2000)
    assert size.users == 1
    for _ in range(10):
        size.note_done(100, 2000)
    assert size.users == USERS_MAX
