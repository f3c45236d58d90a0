"""The log of a room: every change of the room is one entry, and an entry holds all its effects. Pure.

An entry takes the next `rev` of its room, and a message also the next `seq`. The unique key (room, rev) is the lock of
the whole design: an owner that has not seen entry k cannot insert at k + 1, because it would insert at k. Two owners
at once are therefore safe, only slow. Ownership only routes.

Effects are after-images: the settings of the room and the memberships after the entry. The state of a room is its
records (written by the partition, and by `repair.project`) plus the effects of later entries (`apply`).
"""

from enum import StrEnum

import msgspec

from chat_service.rooms.changes import AnyChange, Edit, Reactions
from chat_service.rooms.message import Message
from chat_service.rooms.room import Member, Role, Room, RoomType
from shared.protocol.server_frames import UserProfile


class EntryKind(StrEnum):
    """The kinds of entries. VOID changes nothing; it takes a rev so that a late insert cannot."""

    MESSAGE = "message"
    EDITED = "message.edited"
    ERASED = "message.deleted"
    REACTED = "message.reacted"
    PINNED = "message.pinned"  # or unpinned
    CREATED = "room.created"
    UPDATED = "room.updated"
    DELETED = "room.deleted"
    JOINED = "member.joined"
    LEFT = "member.left"
    ADDED = "member.added"
    REMOVED = "member.removed"
    ROLE = "member.role"
    VOID = "void"


class RoomSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The properties of a room, apart from its members and messages.

    An entry of an earlier version has no `creator_id`: then it is `created_by`.
    """

    name: str
    description: str
    type: RoomType
    created_by: str
    creator_id: str | msgspec.UnsetType | None = msgspec.UNSET
    created_at_ms: int
    direct: tuple[str, str] | None = None
    deleted: bool = False

    @property
    def current_creator_id(self) -> str | None:
        """Return the user who holds the creator role after the entry."""
        return self.created_by if self.creator_id is msgspec.UNSET else self.creator_id


class MemberEffect(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A membership after an entry.

    Without `is_joined` the user is not a member; with `is_invited` they may come back to a private or group room.
    `read_seq` is the initial read mark of a new member. An effect of an earlier version has no `role_since_ms`.
    """

    user_id: str
    is_joined: bool = msgspec.field(default=False, name="isActive")  # an older name, kept on disk
    is_invited: bool = False
    role: Role = Role.MEMBER
    joined_at_ms: int = 0
    role_since_ms: int = 0
    read_seq: int = 0
    profile: UserProfile = UserProfile()


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a room. `id` is that of the command, and so of its message.

    `change` is the change that the entry makes to an earlier message. In JOINED, LEFT, ADDED, REMOVED and ROLE entries
    the first of `members` is the user that the entry is about, and the others change role with it. Other entries list
    the users who join by them: those of a new room, or those who send or react. `last_seq` and `member_count` are those
    of the room after the entry (0 in a void entry). `ends_public`: it makes a public room private. `previous_at_ms`:
    the time of the previous entry, in a direct room; 0 for the first.
    """

    id: str
    room_id: str
    rev: int
    kind: EntryKind
    term: int
    author_id: str
    at_ms: int
    last_seq: int
    member_count: int
    message: Message | None = None
    change: AnyChange | None = None
    settings: RoomSettings | None = None
    members: tuple[MemberEffect, ...] = ()
    ends_public: bool = False
    previous_at_ms: int = 0

    @property
    def has_effects(self) -> bool:
        """Return whether the entry changes more than a plain message does.

        A plain message changes only the newest message of its room and the read mark of its sender.
        """
        return self.settings is not None or self.change is not None or bool(self.members) or self.mentions_somebody

    @property
    def size_bytes(self) -> int:
        """Return the size of the content, for the bounds of a commit."""
        if self.message is not None:
            return self.message.size_bytes
        return len(self.change.text.encode()) if isinstance(self.change, Edit) else 0

    @property
    def mentions_somebody(self) -> bool:
        """Return whether the entry is a message that mentions users or the room."""
        message = self.message
        return message is not None and bool(message.extras.mentions or message.extras.mention_room)

    @property
    def command_ids(self) -> tuple[str, ...]:
        """Return the commands that made the entry: several for reactions that were committed together."""
        return self.change.command_ids if isinstance(self.change, Reactions) else (self.id,)


def with_reaction(entry: LogEntry, change: Reactions, joined: tuple[MemberEffect, ...]) -> LogEntry:
    """Return an entry of reactions with a further one to the same message, whose user may have joined by it.

    The further one must not change the settings of the room.
    """
    before = entry.change
    assert isinstance(before, Reactions), "only reactions share an entry"  # noqa: S101
    together = msgspec.structs.replace(
        change,
        command_ids=before.command_ids + change.command_ids,
        changes=before.changes + change.changes,
    )
    return msgspec.structs.replace(
        entry, change=together, members=entry.members + joined, member_count=entry.member_count + len(joined)
    )


def void_at(room_id: str, rev: int, term: int, at_ms: int) -> LogEntry:
    """Return the entry that takes a rev and changes nothing."""
    return LogEntry(
        id=f"void_{room_id}_{rev}",
        room_id=room_id,
        rev=rev,
        kind=EntryKind.VOID,
        term=term,
        author_id="",
        at_ms=at_ms,
        last_seq=0,
        member_count=0,
    )


def settings_of(room: Room) -> RoomSettings:
    """Return the settings of a room as an effect."""
    return RoomSettings(
        name=room.name,
        description=room.description,
        type=room.type,
        created_by=room.created_by,
        creator_id=room.creator_id,
        created_at_ms=room.created_at_ms,
        direct=room.direct,
        deleted=room.deleted,
    )


def effect_of(user_id: str, member: Member | None) -> MemberEffect:
    """Return a membership as an effect; None stands for a user who is neither member nor invited."""
    if member is None:
        return MemberEffect(user_id=user_id)
    return MemberEffect(
        user_id=user_id,
        is_joined=member.is_joined,
        is_invited=True,
        role=member.role,
        joined_at_ms=member.joined_at_ms,
        role_since_ms=member.role_since_ms,
        read_seq=member.read_seq,
        profile=member.profile,
    )


def member_of(room_id: str, effect: MemberEffect) -> Member | None:
    """Return the membership that an effect describes."""
    if not (effect.is_joined or effect.is_invited):
        return None
    return Member(
        room_id=room_id,
        user_id=effect.user_id,
        role=effect.role,
        joined_at_ms=effect.joined_at_ms,
        role_since_ms=effect.role_since_ms or effect.joined_at_ms,
        read_seq=effect.read_seq,
        profile=effect.profile,
        is_joined=effect.is_joined,
    )


def apply(entry: LogEntry, room: Room | None) -> Room:
    """Return the room after the next entry of its log. Changes `room`; the caller applies the memberships."""
    if entry.settings is not None:
        room = _with_settings(entry, entry.settings, room)
    assert room is not None, "the first entry of a log carries the settings of the room"  # noqa: S101
    room.rev = entry.rev
    if entry.kind is EntryKind.VOID:
        return room
    room.last_seq = entry.last_seq
    room.member_count = entry.member_count
    if entry.change is not None:
        room.changed_rev = entry.rev
    if entry.has_effects:
        room.changed_at_ms = entry.at_ms
    if entry.message is not None:
        room.last_message_at_ms = room.active_at_ms = entry.at_ms
    return room


def _with_settings(entry: LogEntry, settings: RoomSettings, room: Room | None) -> Room:
    if room is None:
        room = Room(
            id=entry.room_id,
            name="",
            description="",
            type=settings.type,
            created_by=settings.created_by,
            creator_id=settings.current_creator_id,
            created_at_ms=settings.created_at_ms,
            active_at_ms=settings.created_at_ms,
            direct=settings.direct,
        )
    room.name = settings.name
    room.description = settings.description
    room.type = settings.type
    room.creator_id = settings.current_creator_id
    room.deleted = settings.deleted
    return room
