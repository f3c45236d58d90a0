"""Write-behind: maxima that follow from messages reach the records despite failures."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.log import LogEntry, MemberEffect, void_at
from chat_service.rooms.message import Message
from chat_service.rooms.room import Member, Role, Room, RoomType
from chat_service.storage.write_behind import DELAY_MS, MARKED_FOR_MS, ROOMS_MAX, MessagePlace, WriteBehind, catch_up
from shared.protocol.server_frames import UserProfile

ROOM = "room_1"


def place(seq: int, user_id: str = "ann", room_id: str = ROOM) -> MessagePlace:
    return MessagePlace(room_id, 2 * seq, seq, user_id, 1_000 + seq)


def test_quiet_room_is_marked_at_once_and_busy_one_every_half_minute() -> None:
    unwritten = WriteBehind()
    assert unwritten.claim_unmarked([ROOM], 1_000) == {ROOM}
    assert unwritten.claim_unmarked([ROOM, "room_2"], 1_000 + MARKED_FOR_MS - 1) == {"room_2"}
    assert unwritten.claim_unmarked([ROOM], 1_000 + MARKED_FOR_MS) == {ROOM}


def test_room_whose_mark_failed_is_marked_with_its_next_message() -> None:
    unwritten = WriteBehind()
    unwritten.claim_unmarked([ROOM], 1_000)
    unwritten.release_claims([ROOM])
    assert unwritten.claim_unmarked([ROOM], 1_001) == {ROOM}


def test_rooms_are_due_after_the_delay_in_order_and_few_at_once() -> None:
    unwritten = WriteBehind()
    for number in range(ROOMS_MAX + 1):
        unwritten.add(place(1, room_id=f"room_{number}"), 1_000 + number)
    assert unwritten.due(1_000 + DELAY_MS - 1) == []
    assert unwritten.due(1_001 + DELAY_MS) == ["room_0", "room_1"]
    due = unwritten.due(1_000 + DELAY_MS + ROOMS_MAX)
    assert due == [f"room_{number}" for number in range(ROOMS_MAX)]
    unwritten.take(due)
    assert unwritten.due(1_000 + DELAY_MS + ROOMS_MAX) == [f"room_{ROOMS_MAX}"]


def test_only_newest_post_and_read_marks_are_written() -> None:
    unwritten = WriteBehind()
    for one in (place(1), place(2, "ben"), place(3), place(4, "ben")):
        unwritten.add(one, 1_000)
    assert unwritten.take([ROOM]) == ([place(4, "ben")], {(ROOM, "ann"): 3, (ROOM, "ben"): 4})
    assert unwritten.take([ROOM]) == ([], {})


def entry(rev: int, room_id: str, *effects: MemberEffect) -> LogEntry:
    sent = Message(
        id=f"msg_{rev}",
        room_id=room_id,
        seq=rev,
        rev=rev,
        user_id="ann",
        user=UserProfile(),
        text="",
        client_message_id=None,
        created_at_ms=1_000,
    )
    return msgspec.structs.replace(void_at(room_id, rev, 1, 1_000), message=sent, members=effects)


def test_room_with_effects_is_left_to_its_whole_record() -> None:
    unwritten = WriteBehind()
    joined = MemberEffect(user_id="ann", is_joined=True)
    unwritten.note([entry(7, ROOM, joined), entry(8, ROOM), entry(3, "room_2")], 1_000)
    assert unwritten.rooms() == {"room_2"}


def test_unknown_room_has_nothing_to_write() -> None:
    assert WriteBehind().take(["room_2"]) == ([], {})


places = st.lists(
    st.builds(place, st.integers(1, 50), st.sampled_from(["ann", "ben"]), st.sampled_from(["room_1", "room_2"]))
)


@given(st.lists(st.tuples(places, st.booleans(), st.booleans()), max_size=20))
def test_maxima_are_written_despite_failures(steps: list[tuple[list[MessagePlace], bool, bool]]) -> None:
    unwritten = WriteBehind()
    noted: list[MessagePlace] = []
    rooms: dict[str, int] = {}
    marks: dict[tuple[str, str], int] = {}
    for fresh, fails, takes_all in [*steps, ([], False, True)]:
        for one in fresh:
            unwritten.add(one, 1_000)
            noted.append(one)
        taken, read = unwritten.take(unwritten.rooms() if takes_all else ["room_2"])
        if fails:
            unwritten.put_back(taken, read, 2_000)
            continue
        rooms |= {one.room_id: max(one.seq, rooms.get(one.room_id, 0)) for one in taken}
        marks |= {key: max(seq, marks.get(key, 0)) for key, seq in read.items()}
    for one in noted:
        assert rooms[one.room_id] >= one.seq
        assert marks[one.room_id, one.user_id] >= one.seq
    assert set(rooms.values()) <= {one.seq for one in noted}
    assert not unwritten.rooms()


def test_records_catch_up_with_messages_beyond_them() -> None:
    room = Room(
        id=ROOM,
        name="Gold",
        description="",
        type=RoomType.PUBLIC,
        created_by="ann",
        creator_id="ann",
        created_at_ms=1,
        active_at_ms=1,
        last_seq=4,
        rev=8,
    )
    member = Member(
        room_id=ROOM,
        user_id="ben",
        role=Role.MEMBER,
        joined_at_ms=1,
        role_since_ms=1,
        read_seq=2,
        profile=UserProfile(),
        is_joined=True,
    )
    catch_up(room, member, [place(5), place(6, "ben"), place(7)])
    assert (room.rev, room.last_seq, room.last_message_at_ms, member.read_seq) == (14, 7, 1_007, 6)
