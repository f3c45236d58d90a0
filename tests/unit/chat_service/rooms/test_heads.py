"""Heads of rooms that spoke: one conflated delivery a second later."""

import msgspec

from chat_service.rooms.decision import RoomState
from chat_service.rooms.entry_deliveries import own_deliveries_of
from chat_service.rooms.heads import DELAY_MS, Heads
from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect, RoomSettings, void_at
from chat_service.rooms.room import Room, RoomType
from shared.bus.delivery import Delivery, DeliveryKind, room_channel, user_channel

NOW_MS = 50_000


def room(room_id: str, direct: tuple[str, str] | None = None) -> Room:
    return Room(
        id=room_id,
        name="",
        description="",
        type=RoomType.PUBLIC if direct is None else RoomType.PRIVATE,
        created_by="ann",
        creator_id="ann",
        created_at_ms=1,
        active_at_ms=1,
        direct=direct,
    )


STATES = {"r": RoomState(room("r")), "s": RoomState(room("s")), "d": RoomState(room("d", ("ann", "ben")))}


def entry(room_id: str, rev: int) -> LogEntry:
    return void_at(room_id, rev, 1, 1)


def head(room_id: str, rev: int) -> Delivery:
    return Delivery(room_channel(room_id), DeliveryKind.HEAD, rev, "", b"")


def test_head_is_due_a_second_after_the_room_spoke() -> None:
    heads = Heads()
    heads.note([entry("r", 4)], STATES, NOW_MS)
    assert heads.due(NOW_MS + DELAY_MS - 1) == []
    assert heads.due(NOW_MS + DELAY_MS) == [head("r", 4)]


def test_head_is_announced_once() -> None:
    heads = Heads()
    heads.note([entry("r", 4)], STATES, NOW_MS)
    heads.due(NOW_MS + DELAY_MS)
    assert heads.due(NOW_MS + 10 * DELAY_MS) == []


def test_busy_room_has_one_line_a_second_with_its_newest_rev() -> None:
    heads = Heads()
    for step in range(4):
        heads.note([entry("r", 4 + step)], STATES, NOW_MS + step * DELAY_MS // 4)
    assert heads.due(NOW_MS + DELAY_MS) == [head("r", 7)]
    heads.note([entry("r", 8)], STATES, NOW_MS + DELAY_MS)
    assert heads.due(NOW_MS + DELAY_MS) == []
    assert heads.due(NOW_MS + 2 * DELAY_MS) == [head("r", 8)]


def test_rooms_are_due_each_in_its_time() -> None:
    heads = Heads()
    heads.note([entry("r", 1)], STATES, NOW_MS)
    heads.note([entry("s", 1), entry("r", 2)], STATES, NOW_MS + 1)
    assert heads.due(NOW_MS + DELAY_MS) == [head("r", 2)]
    assert heads.due(NOW_MS + DELAY_MS + 1) == [head("s", 1)]


def test_head_of_direct_room_goes_to_its_two_users() -> None:
    heads = Heads()
    heads.note([entry("d", 3)], STATES, NOW_MS)
    assert heads.due(NOW_MS + DELAY_MS) == [
        Delivery(user_channel(user_id), DeliveryKind.DIRECT_HEAD, 3, "d", b"1") for user_id in ("ann", "ben")
    ]


def member_entry(kind: EntryKind, rev: int, user_id: str) -> LogEntry:
    settings = RoomSettings(name="", description="", type=RoomType.PUBLIC, created_by="ann", created_at_ms=1)
    changed = {"kind": kind, "members": (MemberEffect(user_id=user_id),), "settings": settings}
    return msgspec.structs.replace(entry("r", rev), **changed)


def test_invitations_and_removals_are_repeated_with_the_head() -> None:
    heads = Heads()
    added, removed = member_entry(EntryKind.ADDED, 4, "ben"), member_entry(EntryKind.REMOVED, 5, "cat")
    heads.note([added, removed, entry("r", 6)], STATES, NOW_MS)
    own = [one for entry in (added, removed) for one in own_deliveries_of(entry, sent_again=True)]
    assert [delivery.channel for delivery in own] == [user_channel("ben"), user_channel("cat")]
    assert heads.due(NOW_MS + DELAY_MS) == [*own, head("r", 6)]
    assert heads.due(NOW_MS + 2 * DELAY_MS) == []


def test_only_the_newest_to_a_user_is_repeated() -> None:
    heads = Heads()
    kinds = (EntryKind.REMOVED, EntryKind.ADDED)
    entries = [member_entry(kind, rev, "ben") for rev, kind in enumerate(kinds, 4)]
    heads.note(entries, STATES, NOW_MS)
    assert heads.due(NOW_MS + DELAY_MS) == [*own_deliveries_of(entries[1], sent_again=True), head("r", 5)]
