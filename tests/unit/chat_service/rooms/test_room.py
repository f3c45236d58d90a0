"""Rooms and members: visibility, management, views, search words."""

from typing import Literal
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.room import (
    Member,
    Role,
    Room,
    RoomRank,
    RoomType,
    check_may_manage,
    may_moderate,
    may_see,
    member_view,
    rank_of,
    room_view,
    unread_count,
    words_of,
)
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import PresenceView, UserProfile

ANN, BEN = Caller(user_id="ann"), Caller(user_id="ben")
ADMIN = Caller(user_id="root", is_admin=True)


def room(type_: RoomType = RoomType.PUBLIC, **fields: object) -> Room:
    given_: dict[str, object] = {
        "id": "room_1",
        "name": "EUR/USD",
        "description": "",
        "type": type_,
        "created_by": "ann",
        "creator_id": "ann",
        "created_at_ms": 1_000,
        "active_at_ms": 1_000,
        **fields,
    }
    return Room(**given_)  # type: ignore[arg-type]


def member(*, is_joined: bool = True, read_seq: int = 0, role: Role = Role.MEMBER) -> Member:
    return Member(
        room_id="room_1",
        user_id="ben",
        role=role,
        joined_at_ms=2_000,
        role_since_ms=2_000,
        read_seq=read_seq,
        profile=UserProfile(first_name="Ben"),
        is_joined=is_joined,
    )


@pytest.mark.parametrize("type_", [RoomType.PRIVATE, RoomType.GROUP])
def test_private_and_group_rooms_exist_only_for_members(type_: RoomType) -> None:
    assert may_see(room(type_), member())
    assert not may_see(room(type_), None)
    assert not may_see(room(type_), member(is_joined=False))


def test_public_room_exists_for_everybody() -> None:
    assert may_see(room(), None)
    assert may_see(room(), member(is_joined=False))


def test_deleted_and_unknown_rooms_exist_for_nobody() -> None:
    assert not may_see(None, None)
    assert not may_see(room(deleted=True), member())


def test_only_creator_and_admin_manage_room() -> None:
    check_may_manage(room(), ANN)
    check_may_manage(room(), ADMIN)
    with pytest.raises(Refusal) as refused:
        check_may_manage(room(), BEN)
    assert refused.value.code is ErrorCode.FORBIDDEN


def test_former_creator_no_longer_manages_the_room() -> None:
    handed_over = room(creator_id="ben")
    check_may_manage(handed_over, BEN)
    with pytest.raises(Refusal):
        check_may_manage(handed_over, ANN)


@pytest.mark.parametrize(
    ("user_id", "membership", "is_admin", "rank"),
    [
        ("ben", None, False, RoomRank.OUTSIDER),
        ("ben", member(is_joined=False, role=Role.MODERATOR), False, RoomRank.OUTSIDER),
        ("ben", member(), False, RoomRank.MEMBER),
        ("ben", member(role=Role.MODERATOR), False, RoomRank.MODERATOR),
        ("ann", None, False, RoomRank.CREATOR),  # of an earlier version, who left
        ("ben", member(), True, RoomRank.ADMIN),
        ("ben", None, True, RoomRank.ADMIN),
    ],
)
def test_rank_follows_role_and_token(user_id: str, membership: Member | None, is_admin: bool, rank: RoomRank) -> None:
    assert rank_of(room(), user_id, membership, is_admin=is_admin) is rank


def test_moderators_and_above_act_on_those_below_them() -> None:
    acts_on = {actor: {target for target in RoomRank if may_moderate(actor, target)} for actor in RoomRank}
    below_creator = {RoomRank.OUTSIDER, RoomRank.MEMBER, RoomRank.MODERATOR}
    assert acts_on == {
        RoomRank.OUTSIDER: set(),
        RoomRank.MEMBER: set(),
        RoomRank.MODERATOR: {RoomRank.OUTSIDER, RoomRank.MEMBER},
        RoomRank.CREATOR: below_creator,
        RoomRank.ADMIN: below_creator | {RoomRank.CREATOR},
    }


@pytest.mark.parametrize("caller", [ANN, ADMIN])
def test_nobody_manages_direct_room(caller: Caller) -> None:
    with pytest.raises(Refusal) as refused:
        check_may_manage(room(RoomType.PRIVATE, direct=("ann", "ben")), caller)
    assert refused.value.code is ErrorCode.FORBIDDEN


def test_unread_count_starts_at_read_mark_of_member() -> None:
    assert unread_count(room(last_seq=10), member(read_seq=4)) == 6
    assert unread_count(room(last_seq=10), member(read_seq=10)) == 0
    assert unread_count(room(last_seq=10), None) == 0
    assert unread_count(room(last_seq=10), member(is_joined=False)) == 0


def test_room_view_has_times_counts_and_membership() -> None:
    view = room_view(room(last_seq=3, last_message_at_ms=5_000, member_count=2), member(read_seq=1), active_now=1)
    assert (view.created_at, view.last_message_at) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:05.000Z")
    assert (view.member_count, view.active_now, view.unread_count, view.is_member) == (2, 1, 2, True)
    stranger = room_view(room(last_seq=3), None, active_now=1)
    assert (stranger.last_message_at, stranger.unread_count, stranger.is_member) == (None, 0, False)


def test_member_view_has_profile_role_and_presence() -> None:
    presence = PresenceView(user_id="ben", status="offline", last_seen_at="1970-01-01T00:00:09.000Z")
    view = member_view(member(), presence)
    assert (view.user_id, view.user.first_name, view.role) == ("ben", "Ben", "member")
    assert (view.joined_at, view.status, view.last_seen_at) == (
        "1970-01-01T00:00:02.000Z",
        "offline",
        presence.last_seen_at,
    )


def test_words_are_unique_and_case_insensitive() -> None:
    assert words_of("EUR/USD traders, EUR: Größe") == ["eur", "grösse", "traders", "usd"]
    assert words_of("— !?") == []


HINDI, HAND = "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093e\u0925"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{HINDI} {HAND}", sorted([HINDI, HAND])),
        ("\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", ["\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22"]),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\u200c",
            ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"],
        ),
        ("\u2764\ufe0f love", ["love"]),
        ("\u0940 \u200d", []),
        ("a_b x\u0301", ["a_b", "x\u0301"]),
    ],
)
def test_marks_and_joiners_stay_in_their_words(name: str, words: list[str]) -> None:
    assert words_of(name) == words


def test_prefix_of_a_word_ends_at_no_mark() -> None:
    assert not HINDI.startswith(tuple(words_of("\u0926\u0940")))
    assert not HAND.startswith(tuple(words_of("\u0939\u093f")))


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_words_are_equal_in_every_unicode_form(form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> None:
    name = "Caf\u00e9 \ufb01nance \uff25\uff35\uff32 \u0130stanbul"
    assert words_of(normalize(form, name)) == words_of("caf\u00e9 FINANCE eur i\u0307stanbul")
    assert words_of(normalize(form, "CAF\u00c9")) == ["caf\u00e9"]


@given(st.text(max_size=100))
def test_words_are_not_special_in_patterns(name: str) -> None:
    """Words are put into a regular expression unescaped."""
    for word in words_of(name):
        assert word
        assert not set(word) & set(r".^$*+?{}[]\|()/ ")
