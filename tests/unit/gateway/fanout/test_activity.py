"""The channel `activity`: pacing, counts, memberships, and a model of a room under losses."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from gateway.fanout.activity import Activity
from gateway.fanout.activity_rooms import PendingQuery
from shared.bus.delivery import (
    ControlKind,
    Delivery,
    DeliveryKind,
    MembershipChange,
    room_channel,
    user_channel,
)
from shared.commands.activity import RoomUnread
from shared.encoding import to_json
from shared.protocol.message_frames import ChatDeletedData, ChatUpdatedData
from shared.protocol.server_frames import ChatMessageData, MemberLeftData, ReadMark, UserProfile, frame
from shared.times import to_iso
from tests.unit.gateway.fanout.hub_support import RecordingSink

ROOM = "room_1"
LIMIT = 10


class ActivityRecorder(RecordingSink):
    """A socket whose reader may be slow."""

    is_behind = False
    is_gone = False


def unread(user_id: str, seq: int = 0, mark: int = 0, mentions: int = 0, rev: int = 1, room: str = ROOM) -> RoomUnread:
    return RoomUnread(
        room_id=room,
        user_id=user_id,
        rev=rev,
        seq=seq,
        read_seq=mark,
        mention_count=mentions,
        last_message_at_ms=seq or None,
        is_direct=False,
    )


def message(
    rev: int, seq: int, by: str = "ann", mentions: Sequence[str] = (), *, everybody: bool = False, room: str = ROOM
) -> Delivery:
    data = ChatMessageData(
        chatroom_id=room,
        message_id=f"msg_{seq}",
        user_id=by,
        message='text "mentions":[',
        timestamp=to_iso(seq),
        seq=seq,
        rev=rev,
        client_message_id=None,
        user=UserProfile(),
        mentions=tuple(mentions) or UNSET,
        mention_room=everybody or UNSET,
    )
    return Delivery(room_channel(room), DeliveryKind.ORDERED, rev, "", frame("chat:message", data))


def read(user_id: str, seq: int, session_id: str = "") -> Delivery:
    mark = frame("chat:read", ReadMark(chatroom_id=ROOM, user_id=user_id, seq=seq))
    return Delivery(user_channel(user_id), DeliveryKind.TRANSIENT, 0, session_id, mark)


def membership(user_id: str, *, is_joined: bool, rev: int = 0) -> Delivery:
    data = to_json(MembershipChange(chatroom_id=ROOM, is_joined=is_joined))
    return Delivery(user_channel(user_id), DeliveryKind.CONTROL, rev, ControlKind.MEMBERSHIP, data)


def head(rev: int) -> Delivery:
    return Delivery(room_channel(ROOM), DeliveryKind.HEAD, rev, "", b"")


def following(activity: Activity, user_id: str, *counts: RoomUnread, session_id: str = "") -> ActivityRecorder:
    sink = ActivityRecorder(user_id, session_id)
    query = activity.begin(user_id)
    activity.apply_all(user_id, query, counts)
    activity.follow(sink)
    activity.end(user_id, query)
    return sink


def flushed(activity: Activity, now_s: float) -> dict[str, list[tuple[str, Any]]]:
    """Flush and return the frames by session."""
    got: dict[str, list[tuple[str, Any]]] = {}
    for due in activity.flush(now_s, LIMIT):
        got[due.sink.session_id] = [(one["type"], one["data"]) for one in map(json.loads, due.frames)]
    return got


def activity_of(seq: int, room: str = ROOM) -> tuple[str, Any]:
    return "room:activity", {"rooms": [{"chatroomId": room, "at": to_iso(seq), "latest": seq}]}


def counts(count: int, mentions: int) -> tuple[str, Any]:
    return "room:unread", {"chatroomId": ROOM, "unreadCount": count, "mentionCount": mentions}


def test_socket_gets_at_most_one_frame_a_second_and_then_the_newest() -> None:
    activity = Activity()
    following(activity, "ben", unread("ben"))
    activity.deliver(message(2, 1))
    assert flushed(activity, 10.0) == {"sess_ben": [activity_of(1)]}
    for seq in (2, 3):
        activity.deliver(message(seq + 1, seq))
        assert flushed(activity, 10.9) == {}
    assert flushed(activity, 11.0) == {"sess_ben": [activity_of(3)]}
    assert not activity.has_work


def test_empty_room_is_not_shown_to_a_new_member() -> None:
    activity = Activity()
    following(activity, "ben")
    activity.deliver(membership("ben", is_joined=True, rev=1))
    activity.apply(activity.take_pairs(), [unread("ben")])
    assert flushed(activity, 10.0) == {"sess_ben": [counts(0, 0)]}
    activity.deliver(message(2, 1))
    assert flushed(activity, 12.0) == {"sess_ben": [activity_of(1)]}


def test_room_with_messages_is_shown_to_a_new_member_alone() -> None:
    activity = Activity()
    following(activity, "ann", unread("ann", seq=3, mark=3, rev=4))
    following(activity, "ben")
    activity.deliver(membership("ben", is_joined=True, rev=5))
    activity.apply(activity.take_pairs(), [unread("ben", seq=3, mark=3, rev=5)])
    assert flushed(activity, 10.0) == {"sess_ben": [activity_of(3), counts(0, 0)]}


def test_room_without_new_messages_is_not_shown_after_a_doubt() -> None:
    activity = Activity()
    following(activity, "ben", unread("ben", seq=3, mark=3, rev=4))
    activity.deliver(head(6))
    assert flushed(activity, 10.0) == {}
    activity.apply(activity.take_pairs(), [unread("ben", seq=3, mark=3, rev=6)])
    assert flushed(activity, 12.0) == {}


def test_slow_reader_gets_the_newest_state_once_it_has_read() -> None:
    activity = Activity()
    ben = following(activity, "ben", unread("ben"), unread("ben", room="room_2"))
    ben.is_behind = True
    for seq in range(1, 6):
        activity.deliver(message(seq + 1, seq))
        activity.deliver(message(seq + 1, seq, room="room_2"))
        assert flushed(activity, 10.0 * seq) == {}
    ben.is_behind = False
    [(_, data)] = flushed(activity, 60.0)["sess_ben"]
    assert {room["chatroomId"]: room["latest"] for room in data["rooms"]} == {ROOM: 5, "room_2": 5}


def test_sockets_beyond_the_limit_are_due_next() -> None:
    activity = Activity()
    for number in range(LIMIT + 3):
        following(activity, f"user_{number}", unread(f"user_{number}"))
    activity.deliver(message(2, 1))
    assert (len(flushed(activity, 10.0)), len(flushed(activity, 10.0))) == (LIMIT, 3)


def test_own_message_and_own_read_mark_reach_the_other_sockets() -> None:
    activity = Activity()
    following(activity, "ben", unread("ben", seq=2, mentions=1), session_id="one")
    following(activity, "ben", unread("ben", seq=2, mentions=1), session_id="two")
    activity.deliver(read("ben", 2, session_id="one"))
    assert flushed(activity, 10.0) == {"two": [counts(0, 0)]}
    activity.deliver(message(2, 3, by="ann"))
    activity.deliver(message(3, 4, by="ben"))
    expected = [activity_of(4), counts(0, 0)]
    assert flushed(activity, 20.0) == {"one": expected, "two": expected}


def test_mentions_count_once_and_not_by_oneself() -> None:
    activity = Activity()
    following(activity, "ben", unread("ben"))
    for _ in range(2):  # the second one is a repeat
        activity.deliver(message(2, 1, mentions=["ben"], everybody=True))
    activity.deliver(message(3, 2, everybody=True))
    assert flushed(activity, 10.0) == {"sess_ben": [activity_of(2), counts(2, 2)]}
    activity.deliver(message(4, 3, by="ben", mentions=["ben"], everybody=True))
    assert flushed(activity, 20.0) == {"sess_ben": [activity_of(3), counts(0, 0)]}


def test_removed_user_sees_nothing_more_of_the_room() -> None:
    activity = Activity()
    following(activity, "ben", unread("ben"))
    activity.deliver(message(2, 1, mentions=["ben"]))
    activity.deliver(membership("ben", is_joined=False, rev=3))
    activity.deliver(message(4, 2, mentions=["ben"]))
    assert flushed(activity, 10.0) == {}
    assert activity.take_abandoned_channels() == [room_channel(ROOM)]


def test_room_is_withheld_after_a_gap_until_the_answer() -> None:
    activity = Activity()
    following(activity, "ben", unread("ben"))
    activity.deliver(message(3, 2))  # entry 2, perhaps ben's removal, is missing
    assert flushed(activity, 10.0) == {}
    pairs = activity.take_pairs()
    assert pairs == (("ben", ROOM),)
    activity.apply(pairs, [unread("ben", seq=2, rev=3)])
    assert flushed(activity, 20.0) == {"sess_ben": [activity_of(2)]}
    activity.deliver(head(4))
    pairs = activity.take_pairs()
    activity.apply(pairs, [])
    activity.deliver(message(5, 3))
    assert flushed(activity, 30.0) == {}


def test_answer_that_is_older_than_a_line_is_asked_for_again() -> None:
    activity = Activity()
    following(activity, "ben", unread("ben"))
    activity.deliver(head(2))
    pairs = activity.take_pairs()
    activity.deliver(message(3, 1, mentions=["ben"]))
    activity.apply(pairs, [unread("ben", rev=2)])
    assert activity.take_pairs() == pairs


def test_line_that_an_answer_includes_counts_once() -> None:
    activity = Activity()
    following(activity, "ann", unread("ann"))
    following(activity, "ben", unread("ben", seq=1, mentions=1, rev=2))
    activity.deliver(message(2, 1, by="cat", mentions=["ann", "ben"]))
    assert flushed(activity, 10.0) == {"sess_ann": [activity_of(1), counts(1, 1)]}
    activity.deliver(message(3, 2, by="cat", mentions=["ben"]))
    assert flushed(activity, 20.0)["sess_ben"] == [activity_of(2), counts(2, 2)]


def test_lines_dropped_as_repeats_are_asked_for() -> None:
    activity = Activity()
    query = activity.begin("ben")
    following(activity, "ann", unread("ann", seq=1, rev=2))
    activity.deliver(message(2, 1, by="cat", mentions=["ben"]))
    activity.apply_all("ben", query, [unread("ben")])
    activity.end("ben", query)
    assert activity.take_pairs() == (("ben", ROOM),)


def test_membership_that_ends_during_a_subscription_is_not_shown() -> None:
    activity = Activity()
    query = activity.begin("ben")
    activity.deliver(membership("ben", is_joined=False))
    activity.apply_all("ben", query, [unread("ben")])
    ben = ActivityRecorder("ben")
    activity.follow(ben)
    assert activity.greeting(ben).rooms == ()
    activity.end("ben", query)
    assert activity.take_pairs() == (("ben", ROOM),)


def test_lost_connection_withholds_all_until_requery() -> None:
    activity = Activity()
    following(activity, "ben", unread("ben", seq=1))
    activity.suspend()
    activity.deliver(message(9, 4))
    assert flushed(activity, 10.0) == {}
    query = activity.begin("ben")
    activity.apply_all("ben", query, [unread("ben", seq=4, mark=3, mentions=1, rev=9)])
    activity.end("ben", query)
    assert flushed(activity, 20.0) == {"sess_ben": [activity_of(4), counts(1, 1)]}


# A model ------------------------------------------------------------------------------------------------------------


@dataclass
class RoomModel:
    """A room with its log, and the lines of it, of which a gateway gets some, in order or late."""

    rev: int = 1
    seq: int = 0
    marks: dict[str, int] = field(default_factory=lambda: {"ann": 0, "ben": 0})
    mentioned: dict[int, set[str]] = field(default_factory=dict)
    lines: list[Delivery] = field(default_factory=list)

    def post(self, by: str, mentions: tuple[str, ...], everybody: bool) -> None:
        self.rev, self.seq = self.rev + 1, self.seq + 1
        if by not in self.marks:
            self.marks[by] = 0
            self.lines.append(membership(by, is_joined=True, rev=self.rev))
        self.marks[by] = self.seq
        self.mentioned[self.seq] = {*mentions, *(("",) if everybody else ())}
        self.lines.append(message(self.rev, self.seq, by, mentions, everybody=everybody))

    def change(self, seq: int, mentions: tuple[str, ...] | None) -> None:
        if seq not in self.mentioned:
            return
        self.rev += 1
        if mentions is None:
            self.mentioned[seq] = set()
            deleted = ChatDeletedData(
                chatroom_id=ROOM, rev=self.rev, message_id=f"msg_{seq}", deleted_by="ann", deleted_at=to_iso(1)
            )
            shown = frame("chat:deleted", deleted)
        else:
            self.mentioned[seq] = {*mentions, *(self.mentioned[seq] & {""})}
            edited = ChatUpdatedData(
                chatroom_id=ROOM,
                rev=self.rev,
                message_id=f"msg_{seq}",
                user_id="ann",
                message="",
                edited_at=to_iso(1),
                mentions=mentions or UNSET,
            )
            shown = frame("chat:updated", edited)
        self.lines.append(Delivery(room_channel(ROOM), DeliveryKind.ORDERED, self.rev, "", shown))

    def read(self, user_id: str, seq: int) -> None:
        if self.marks.get(user_id, seq) < seq <= self.seq:
            self.marks[user_id] = seq
            self.lines.append(read(user_id, seq))

    def leave(self, user_id: str) -> None:
        if user_id in self.marks and user_id != "ann":
            self.rev += 1
            del self.marks[user_id]
            left = frame("member:left", MemberLeftData(chatroom_id=ROOM, user_id=user_id, member_count=1))
            self.lines.append(membership(user_id, is_joined=False, rev=self.rev))
            self.lines.append(Delivery(room_channel(ROOM), DeliveryKind.ORDERED, self.rev, "", left))

    def counts(self, user_id: str) -> list[RoomUnread]:
        if user_id not in self.marks:
            return []
        mark = self.marks[user_id]
        mentions = sum(not {user_id, ""}.isdisjoint(named) for seq, named in self.mentioned.items() if seq > mark)
        return [unread(user_id, self.seq, mark, mentions, self.rev)]


users = st.sampled_from(("ann", "ben", "cat"))
some = st.lists(users, max_size=2, unique=True).map(tuple)
seqs = st.integers(1, 6)
acts = st.lists(
    st.one_of(
        st.tuples(st.just("post"), users, some, st.booleans()),
        st.tuples(st.just("edit"), seqs, some),
        st.tuples(st.just("erase"), seqs),
        st.tuples(st.just("read"), users, seqs),
        st.tuples(st.just("leave"), users),
        st.tuples(st.just("arrive"), st.integers(1, 4)),
        st.tuples(st.just("lose")),
        st.tuples(st.just("subscribe"), users),
        st.tuples(st.just("ask")),
        st.tuples(st.just("answer")),
        st.tuples(st.just("flush")),
        st.tuples(st.just("disconnect")),
    ),
    max_size=30,
)


@settings(max_examples=400, deadline=None)
@given(acts)
@example([("disconnect",), ("post", "ann", (), False), ("lose",), ("leave", "ben")])
@example([("subscribe", "ben"), ("disconnect",), ("post", "ben", (), False), ("lose",), ("post", "ann", (), False)])
def test_sockets_end_up_with_the_state_of_the_room(steps: list[tuple[Any, ...]]) -> None:
    """Lines arrive late, are lost and overtake answers; a lost entry shows by a gap or the head."""
    activity, model = Activity(), RoomModel()
    shown: dict[str, tuple[int, int, int]] = {}  # by session: latest, unread count, mention count, as a client knows
    begun: dict[str, tuple[PendingQuery, list[RoomUnread]]] = {}
    pairs: tuple[tuple[str, str], ...] = ()
    answer: list[RoomUnread] = []
    clock_s = 0.0
    begun["ann"] = activity.begin("ann"), model.counts("ann")

    def finish_subscriptions() -> None:
        for user_id, (query, found) in begun.items():
            activity.apply_all(user_id, query, found)
            if f"sess_{user_id}" not in shown:
                sink = ActivityRecorder(user_id)
                activity.follow(sink)
                rooms = activity.greeting(sink).rooms
                shown[sink.session_id] = next(
                    ((room.seq, room.unread_count, room.mention_count) for room in rooms), (0, 0, 0)
                )
            activity.end(user_id, query)
        begun.clear()

    def flush() -> None:
        for session_id, frames in flushed(activity, clock_s).items():
            for type_, data in frames:
                latest, count, mentions = shown[session_id]
                if type_ == "room:activity":
                    newest = data["rooms"][0]["latest"]
                    shown[session_id] = (newest, count + newest - latest, mentions)
                else:
                    shown[session_id] = (latest, data["unreadCount"], data["mentionCount"])

    def finish_pairs() -> None:
        nonlocal pairs
        if pairs:
            activity.apply(pairs, answer)
            pairs = ()

    finish_subscriptions()
    for step in steps:
        clock_s += 2.0
        match step:
            case ("post", by, mentions, everybody):
                model.post(by, mentions, everybody)
            case ("edit", seq, mentions):
                model.change(seq, mentions)
            case ("erase", seq):
                model.change(seq, None)
            case ("read", user_id, seq):
                model.read(user_id, seq)
            case ("leave", user_id):
                model.leave(user_id)
            case ("arrive", number):
                for line in model.lines[:number]:
                    activity.deliver(line)
                del model.lines[:number]
            case ("lose",) if model.lines and model.lines[0].kind is DeliveryKind.ORDERED:
                del model.lines[0]
            case ("subscribe", user_id) if user_id not in begun:
                begun[user_id] = activity.begin(user_id), model.counts(user_id)
            case ("ask",) if not pairs:
                pairs = activity.take_pairs()
                answer = [count for user_id, _ in pairs for count in model.counts(user_id)]
            case ("answer",):
                finish_pairs()
                finish_subscriptions()
            case ("flush",):
                flush()
            case ("disconnect",):
                model.lines.clear()
                activity.suspend()
                begun |= {
                    one: (activity.begin(one), model.counts(one)) for one in activity.user_ids if one not in begun
                }
                begun = {one: (query, model.counts(one)) for one, (query, _) in begun.items()}
    for line in model.lines:
        activity.deliver(line)
    finish_subscriptions()
    activity.deliver(head(model.rev))
    while pairs or activity.has_pairs_to_query:
        finish_pairs()
        pairs = activity.take_pairs()
        answer = [count for user_id, _ in pairs for count in model.counts(user_id)]
    clock_s += 2.0
    flush()
    assert not activity.has_work
    for session_id, (latest, count, mentions) in shown.items():
        found = model.counts(session_id.removeprefix("sess_"))
        if found:
            assert (latest, count, mentions) == (model.seq, found[0].unread_count, found[0].mention_count)
