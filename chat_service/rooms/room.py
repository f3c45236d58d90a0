"""Rooms and members: the records, their permissions, their views. Pure."""

import re
from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import NamedTuple
from unicodedata import category, normalize

import msgspec

from shared.commands.chat_views import MemberView, RoomView
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import PresenceView, UserProfile
from shared.times import to_iso

_JOINERS = "\u200c\u200d"  # zero-width, within words of Persian and Indic scripts
_IN_WORDS = "_" + _JOINERS
_leading = re.compile(r"^\W+")
_ascii_word = re.compile(r"\w+", re.ASCII)  # HOT: most texts; 2 us instead of 25


class RoomType(StrEnum):
    """The type of a room: a public room is visible to everyone, others to their members."""

    PUBLIC = "public"
    PRIVATE = "private"
    GROUP = "group"


class Role(StrEnum):
    """A member's role. A room with members has exactly one creator, the user `Room.creator_id`."""

    CREATOR = "creator"
    MODERATOR = "moderator"
    MEMBER = "member"


class RoomRank(IntEnum):
    """A user's rank in a room, for acts on other users and on their messages."""

    OUTSIDER = 0
    MEMBER = 1
    MODERATOR = 2
    CREATOR = 3
    ADMIN = 4


_RANKS = {Role.MEMBER: RoomRank.MEMBER, Role.MODERATOR: RoomRank.MODERATOR, Role.CREATOR: RoomRank.CREATOR}


class Room(msgspec.Struct, kw_only=True):
    """The state of a room after entry `rev` of its log.

    `created_by` is the user who made the room, and never changes. `creator_id` is the user who has the role creator: a
    member or, while nobody is in the room, the last one to leave. It is None once the last member has been removed. In
    a room of an earlier version, the creator may have left while others stayed, and still manages it. `direct` names
    the two users of a direct room. A deleted room stays as a tombstone until it is purged. Lists are sorted by
    `active_at_ms`, the time of the creation or of the last message. `changed_rev` is the last entry that changed an
    earlier message, `changed_at_ms` the time of the last entry that was more than a plain message. Messages up to
    `old_seq` were stored before there was a log.
    """

    id: str
    name: str
    description: str
    type: RoomType
    created_by: str
    creator_id: str | None
    created_at_ms: int
    active_at_ms: int
    direct: tuple[str, str] | None = None
    last_seq: int = 0
    last_message_at_ms: int | None = None
    member_count: int = 0
    rev: int = 0
    changed_rev: int = 0
    changed_at_ms: int = 0
    old_seq: int = 0
    deleted: bool = False

    @property
    def newest_at_ms(self) -> int:
        """Return the time of the newest entry."""
        return max(self.active_at_ms, self.changed_at_ms)


class Member(msgspec.Struct, kw_only=True):
    """A user in a room.

    A user who left a private or group room keeps a record with `is_joined` False: they are still invited.
    `role_since_ms` is when the role began, by which the longest-standing moderator is found.
    """

    room_id: str
    user_id: str
    role: Role
    joined_at_ms: int
    role_since_ms: int
    read_seq: int
    profile: UserProfile
    is_joined: bool = True


class Membership(NamedTuple):
    """A joined membership, and its online flag: whether `activeNow` counts it."""

    room_id: str
    user_id: str
    is_flagged_online: bool


def words_of(name: str) -> list[str]:
    """Return the distinct words of a room's name for prefix search, sorted; see `words_in`."""
    return sorted(set(words_in(name)))


def folded_text(text: str) -> str:
    """Return a text without case and in one Unicode form (NFKC), in which words are compared."""
    return text.lower() if text.isascii() else normalize("NFKC", normalize("NFKC", text).casefold())


def words_in(text: str) -> list[str]:
    """Return the words of a text in order, without case and in one Unicode form (NFKC).

    A word begins with a letter, digit or `_`; combining marks and joiners, which many scripts write within words,
    continue it. See https://unicode.org/reports/tr15/ and https://unicode.org/reports/tr29/.
    """
    folded = folded_text(text)
    if folded.isascii():
        return _ascii_word.findall(folded)
    runs = "".join(char if _is_in_word(char) else " " for char in folded).split(" ")
    return [word for run in runs if (word := _leading.sub("", run).rstrip(_JOINERS))]


def _is_in_word(char: str) -> bool:
    return char.isalnum() or char in _IN_WORDS or category(char).startswith("M")


def may_see(room: Room | None, member: Member | None) -> bool:
    """Return whether a user sees the room: everyone sees a public room, only members any other."""
    if room is None or room.deleted:
        return False
    return room.type is RoomType.PUBLIC or (member is not None and member.is_joined)


def check_may_manage(room: Room, caller: Caller) -> None:
    """Raise FORBIDDEN unless the caller is creator or admin. A direct room has no manager."""
    if room.direct is not None:
        raise Refusal(ErrorCode.FORBIDDEN, "a direct room belongs to its two users and cannot be changed")
    if not (caller.is_admin or is_creator(room, caller.user_id)):
        raise Refusal(ErrorCode.FORBIDDEN, "only the creator of the room or an admin may do this")


def is_creator(room: Room, user_id: str) -> bool:
    """Return whether a user has the role creator; see `Room.creator_id`."""
    return room.creator_id == user_id


def rank_of(room: Room, user_id: str, member: Member | None, *, is_admin: bool = False) -> RoomRank:
    """Return a user's rank in a room. Only the caller of a command is known to be an admin, by the token."""
    if is_admin:
        return RoomRank.ADMIN
    if is_creator(room, user_id):
        return RoomRank.CREATOR
    return RoomRank.OUTSIDER if member is None or not member.is_joined else _RANKS[member.role]


def may_moderate(actor: RoomRank, target: RoomRank) -> bool:
    """Return whether a user may act on another user and their messages: from moderator up, on lower ranks only."""
    return actor >= RoomRank.MODERATOR and actor > target


def heir_of(members: Iterable[Member]) -> Member | None:
    """Return the next creator: the moderator of longest standing, else the member of longest standing."""
    joined = [member for member in members if member.is_joined]
    moderators = [member for member in joined if member.role is Role.MODERATOR]
    if moderators:
        return min(moderators, key=lambda member: (member.role_since_ms, member.user_id))
    return min(joined, key=lambda member: (member.joined_at_ms, member.user_id), default=None)


def unread_count(room: Room, member: Member | None) -> int:
    """Return the number of messages after the member's read mark; 0 for a non-member."""
    if member is None or not member.is_joined:
        return 0
    return max(room.last_seq - member.read_seq, 0)


def room_view(room: Room, member: Member | None, active_now: int) -> RoomView:
    """Return a room as the holder of `member` sees it."""
    return RoomView(
        id=room.id,
        name=room.name,
        description=room.description,
        type=room.type,
        member_count=room.member_count,
        active_now=active_now,
        last_message_at=None if room.last_message_at_ms is None else to_iso(room.last_message_at_ms),
        created_by=room.created_by,
        created_at=to_iso(room.created_at_ms),
        last_seq=room.last_seq,
        unread_count=unread_count(room, member),
        is_member=member is not None and member.is_joined,
        direct_user_ids=room.direct,
    )


def member_view(member: Member, presence: PresenceView) -> MemberView:
    """Return a member as the list of members shows it."""
    return MemberView(
        user_id=member.user_id,
        user=member.profile,
        role=member.role,
        joined_at=to_iso(member.joined_at_ms),
        status=presence.status,
        last_seen_at=presence.last_seen_at,
    )
