"""One room command on one room: the state it reads, the entry it makes, and the steps that decisions share. Pure."""

from dataclasses import dataclass, field
from typing import NamedTuple

from chat_service.rooms.changes import AnyChange, Reactions, message_after
from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect, effect_of, settings_of, with_reaction
from chat_service.rooms.message import Message, RecentMessages
from chat_service.rooms.room import (
    Member,
    Role,
    Room,
    RoomRank,
    RoomType,
    check_may_manage,
    heir_of,
    is_creator,
    may_see,
    rank_of,
    room_view,
)
from shared.bus.delivery import Delivery, DeliveryKind
from shared.commands.chat import AnyRoomCommand, Changed, Gone, RoomHead, Sent
from shared.commands.chat_views import MemberView, RoomView
from shared.errors import Refusal
from shared.protocol.server_frames import PresenceView, ReadMark, TypingMark, UserProfile

ReplyData = Sent | Changed | RoomHead | RoomView | MemberView | Gone | ReadMark | TypingMark
Answer = ReplyData | Refusal | None  # None: the caller has given up, so no answer is sent


class Toggle(NamedTuple):
    """The state of a reaction or a pin, in effect or not, since entry `rev`, the last one that changed it."""

    is_active: bool
    rev: int


class Rules(NamedTuple):
    """The settings that decisions follow. An `edit_window_ms` of 0 allows no edits at all."""

    edit_window_ms: int = 24 * 3_600_000


DEFAULT_RULES = Rules()


class PendingCommand(NamedTuple):
    """A command and the conditions under which it is decided.

    `is_resent`: an earlier copy may have been decided. `may_land_later`: an owner that is stale by now may have
    received that copy and may still insert its entry. `refusal`: the command exceeds a limit of its caller, or its
    gateway refuses it; it is raised before the command makes an entry. `profile` is the caller's current profile.
    """

    command: AnyRoomCommand
    is_resent: bool = False
    may_land_later: bool = False
    expired: bool = False
    refusal: Refusal | None = None
    profile: UserProfile = UserProfile()


@dataclass(slots=True)
class RoomState:
    """The partition's knowledge of one room. `members` holds the users loaded so far; None stands for a non-member.

    `recent` is shared by all rooms of the partition. `committed_rev` is the room's rev after the last batch that
    succeeded. The rest is loaded per batch:

    - `repeats`: by user and clientMessageId, the stored messages that commands of the batch may repeat;
    - `stored`: by command id, the entries that earlier copies of the batch's commands made; `shown`: by entry id, these
      as a replay shows them now;
    - `active_now`: the number of members online;
    - `presence`: of the users named in commands;
    - `messages`: those named in commands; None for an unknown id;
    - `reactions`: by message, user and emoji;
    - `pins`: by message, all that are in effect, and those of messages named in commands.
    """

    room: Room | None
    members: dict[str, Member | None] = field(default_factory=dict)
    recent: RecentMessages = field(default_factory=RecentMessages)
    committed_rev: int = 0
    repeats: dict[tuple[str, str], Message] = field(default_factory=dict)
    stored: dict[str, LogEntry] = field(default_factory=dict)
    shown: dict[str, LogEntry] = field(default_factory=dict)
    active_now: int = 0
    presence: dict[str, PresenceView] = field(default_factory=dict)
    messages: dict[str, Message | None] = field(default_factory=dict)
    reactions: dict[tuple[str, str, str], Toggle] = field(default_factory=dict)
    pins: dict[str, Toggle] = field(default_factory=dict)

    def end_batch(self) -> None:
        """Clear the state that was loaded only for the committed batch."""
        self.committed_rev = 0 if self.room is None else self.room.rev
        self.repeats.clear()
        self.stored.clear()
        self.shown.clear()
        self.presence.clear()
        self.messages.clear()
        self.reactions.clear()
        self.pins.clear()


@dataclass(slots=True)
class Changes:
    """The outcome of a batch: the entries to insert, in order; then read marks, deliveries and answers.

    `found` are, by id, entries that earlier copies of these commands made: their deliveries are sent again.
    `deliveries` are those not caused by an entry. `answers[i]` belongs to command i. `open_reactions` holds, by room,
    the index of the newest reaction entry: a reaction to the same message joins it, as long as no other kind of command
    comes in between.
    """

    entries: list[LogEntry] = field(default_factory=list)
    found: dict[str, LogEntry] = field(default_factory=dict)
    read_marks: dict[tuple[str, str], int] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    open_reactions: dict[str, int] = field(default_factory=dict)


class Decision:
    """One command being decided. Its methods are the steps that several commands share.

    A decision that changes the room calls `record` with the kind of its entry, which contains all effects of the
    decision.
    """

    def __init__(
        self, pending: PendingCommand, state: RoomState, changes: Changes, now_ms: int, rules: Rules = DEFAULT_RULES
    ) -> None:
        self.pending = pending
        self.state = state
        self.changes = changes
        self.now_ms = now_ms
        self.rules = rules
        self.caller = pending.command.caller
        self.room_id = pending.command.room_id
        self._previous_at_ms = state.room.newest_at_ms if state.room is not None and state.room.direct else 0
        self._kind: EntryKind | None = None
        self._message: Message | None = None
        self._change: AnyChange | None = None
        self.shares_entry = False  # with the reaction before it
        self._settings_changed = False
        self._ends_public = False
        self._members: dict[str, Member | None] = {}

    # Reading --------------------------------------------------------------------------------------------------------

    def joined_member(self, user_id: str) -> Member | None:
        """Return the user's membership; None for a non-member and for a member who has left."""
        member = self.state.members.get(user_id)
        return member if member is not None and member.is_joined else None

    def is_online(self, user_id: str) -> bool:
        """Return whether the user is online; False if their presence was not loaded."""
        presence = self.state.presence.get(user_id)
        return presence is not None and presence.status == "online"

    def rank(self, room: Room) -> RoomRank:
        """Return the caller's rank in the room."""
        user_id = self.caller.user_id
        return rank_of(room, user_id, self.state.members.get(user_id), is_admin=self.caller.is_admin)

    def moderates(self, room: Room) -> bool:
        """Return whether the caller is a moderator of the room or ranks higher: its creator or an admin."""
        return self.rank(room) >= RoomRank.MODERATOR

    def visible_room(self) -> Room:
        """Return the room. Raises NOT_FOUND unless the caller may see it."""
        room = self.state.room
        if room is None or not may_see(room, self.joined_member(self.caller.user_id)):
            raise Refusal.not_found("room")
        return room

    def visible_or_left_room(self) -> Room:
        """Return the room. Raises NOT_FOUND unless the caller may see it or has left it."""
        room = self.state.room
        if room is None or room.deleted:
            raise Refusal.not_found("room")
        if room.type is not RoomType.PUBLIC and self.state.members.get(self.caller.user_id) is None:
            raise Refusal.not_found("room")
        return room

    def managed_room(self) -> Room:
        """Return the room for its creator or an admin, neither of whom needs to be a member.

        Raises FORBIDDEN for other users who see it, NOT_FOUND for the rest. An admin neither manages nor sees a direct
        room. Its id follows from its two users, so FORBIDDEN instead of NOT_FOUND would reveal who writes to whom.
        """
        room = self.state.room
        if room is None or room.deleted:
            raise Refusal.not_found("room")
        manages = room.direct is None and (self.caller.is_admin or is_creator(room, self.caller.user_id))
        if not (manages or may_see(room, self.joined_member(self.caller.user_id))):
            raise Refusal.not_found("room")
        check_may_manage(room, self.caller)
        return room

    def message(self, message_id: str) -> Message:
        """Return a message of the room as it is now. Raises NOT_FOUND."""
        message = self.state.messages.get(message_id)
        if message is None:
            raise Refusal.not_found("message")
        return message

    def repeated(self, client_message_id: str) -> Message | None:
        """Return the message that the caller sent into this room under this id, if it is known here."""
        user_id = self.caller.user_id
        stored = self.state.repeats.get((user_id, client_message_id)) if self.state.repeats else None
        return stored or self.state.recent.find(self.room_id, user_id, client_message_id)

    def is_old(self, message: Message) -> bool:
        """Return whether a message was stored before there was a log."""
        return self.state.room is not None and message.seq <= self.state.room.old_seq

    def view(self, room: Room) -> RoomView:
        """Return the room as the caller sees it."""
        return room_view(room, self.joined_member(self.caller.user_id), self.state.active_now)

    def check_limits(self) -> None:
        """Raise the refusal that the command carries, if any: of its caller's limits, or of its gateway.

        Call it once the command is about to change something.
        """
        if self.pending.refusal is not None:
            raise self.pending.refusal

    # Writing --------------------------------------------------------------------------------------------------------

    def record(self, kind: EntryKind, message: Message | None = None) -> None:
        """Record all effects of this decision as one entry of this kind."""
        self._kind = kind
        self._message = message

    def change_settings(self, *, ends_public: bool = False) -> None:
        """Include the room's settings, as they are at the end of the decision, in the entry."""
        self._settings_changed = True
        self._ends_public = ends_public

    def add_member(self, room: Room, user_id: str, profile: UserProfile, role: Role = Role.MEMBER) -> Member:
        """Make the user a member. The first one in an empty room becomes its creator."""
        member = Member(
            room_id=room.id,
            user_id=user_id,
            role=role,
            joined_at_ms=self.now_ms,
            role_since_ms=self.now_ms,
            read_seq=room.last_seq,
            profile=profile,
        )
        is_first = room.member_count == 0
        self.state.members[user_id] = self._members[user_id] = member
        room.member_count += 1
        self.state.active_now += self.is_online(user_id)
        if is_first or is_creator(room, user_id):
            self.make_creator(room, member)
        return member

    def end_membership(self, room: Room, member: Member, *, stays_invited: bool) -> None:
        """End a membership or an invitation; a member who stays invited may come back to a private room.

        A creator passes the room to its heir. Without one, they keep the role and may come back.
        """
        if member.is_joined:
            room.member_count -= 1
            self.state.active_now -= self.is_online(member.user_id)
        member.is_joined = False
        member.role = Role.MEMBER
        left = member if stays_invited else None
        self.state.members[member.user_id] = self._members[member.user_id] = left
        if is_creator(room, member.user_id):
            loaded = (other for other in self.state.members.values() if other is not None)
            if (heir := heir_of(loaded)) is not None:
                self.make_creator(room, heir)

    def set_role(self, member: Member, role: Role) -> None:
        """Give a member another role."""
        member.role, member.role_since_ms = role, self.now_ms
        self._members[member.user_id] = member

    def make_creator(self, room: Room, member: Member) -> None:
        """Hand the room over to a member; the previous creator becomes a moderator."""
        before = None if room.creator_id is None else self.joined_member(room.creator_id)
        self.set_role(member, Role.CREATOR)
        if before is not None and before is not member:
            self.set_role(before, Role.MODERATOR)
        if not is_creator(room, member.user_id):
            self.set_creator(room, member.user_id)

    def set_creator(self, room: Room, user_id: str | None) -> None:
        """Record the holder of the creator role."""
        room.creator_id = user_id
        self.change_settings()

    def mark_read(self, member: Member, seq: int) -> None:
        """Move the member's read mark to `seq`."""
        member.read_seq = seq
        self.changes.read_marks[member.room_id, member.user_id] = seq

    def deliver(self, channel: str, kind: DeliveryKind, frame_bytes: bytes, key: str = "") -> None:
        """Add a delivery without an entry."""
        self.changes.deliveries.append(Delivery(channel, kind, 0, key, frame_bytes))

    def change_message(self, kind: EntryKind, message: Message, change: AnyChange) -> int:
        """Record a change of a message as this decision's entry, and return its rev."""
        assert self.state.room is not None, "a message has a room"  # noqa: S101
        rev = self.state.room.rev + 1
        self._apply(message, change, rev)
        self.record(kind)
        self._change = change
        return rev

    def _apply(self, message: Message, change: AnyChange, rev: int) -> None:
        self.state.messages[message.id] = message_after(
            message, change, by=self.caller.user_id, at_ms=self.now_ms, rev=rev
        )
        self.state.recent.forget(message)
        self.state.repeats.pop((message.user_id, message.client_message_id or ""), None)

    def change_reactions(self, message: Message, change: Reactions) -> int:
        """Record a reaction and return the rev of its entry.

        It shares the entry of a directly preceding reaction to the same message, so the reactions of a crowd cost few
        entries. A reaction that changes the room's settings takes an entry of its own: that of the first user to join
        an empty room, who becomes its creator.
        """
        index = None if self._settings_changed else self.changes.open_reactions.get(self.room_id)
        entry = None if index is None else self.changes.entries[index]
        if index is None or entry is None or not isinstance(entry.change, Reactions):
            return self.change_message(EntryKind.REACTED, message, change)
        if entry.change.message_id != message.id:
            return self.change_message(EntryKind.REACTED, message, change)
        self._apply(message, change, entry.rev)
        self.changes.entries[index] = with_reaction(entry, change, self.member_effects())
        self.shares_entry = True
        return entry.rev

    def member_effects(self) -> tuple[MemberEffect, ...]:
        """Return the memberships that the decision changed."""
        return tuple(effect_of(user_id, member) for user_id, member in self._members.items())

    def take_entry(self, term: int) -> LogEntry | None:
        """Return the entry of the decision, or None, and advance the room to it."""
        room = self.state.room
        if self._kind is None or room is None:
            return None
        room.rev += 1
        if self._change is not None:
            room.changed_rev = room.rev
        entry = LogEntry(
            id=self.pending.command.id,
            room_id=room.id,
            rev=room.rev,
            kind=self._kind,
            term=term,
            author_id=self.caller.user_id,
            at_ms=self.now_ms,
            last_seq=room.last_seq,
            member_count=room.member_count,
            message=self._message,
            change=self._change,
            settings=settings_of(room) if self._settings_changed else None,
            members=self.member_effects(),
            ends_public=self._ends_public,
            previous_at_ms=self._previous_at_ms,
        )
        if entry.has_effects:
            room.changed_at_ms = entry.at_ms
        return entry
