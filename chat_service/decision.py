"""One room command on one room: the state it reads, the changes it makes, and the steps that decisions share. Pure."""

from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import structs

from chat_service.messages import Message, RecentMessages
from chat_service.rooms import Member, Role, Room, RoomType, check_may_manage, may_see, room_view
from shared.bus.delivery import ControlKind, Delivery, DeliveryClass, room_channel
from shared.commands.chat import Gone, MemberView, RoomCommands, RoomHead, RoomView, Sent
from shared.encoding import to_json
from shared.errors import Refusal
from shared.protocol.server_frames import (
    MemberJoinedData,
    MemberLeftData,
    PresenceView,
    ReadMark,
    TypingMark,
    UserProfile,
    frame,
)
from shared.protocol.wire_struct import WireStruct

ReplyData = Sent | RoomHead | RoomView | MemberView | Gone | ReadMark | TypingMark
Answer = ReplyData | Refusal | None  # None: the caller has given up, so no line is sent


class PendingCommand(NamedTuple):
    """A command and the circumstances of its arrival.

    `redelivered`: an earlier try may have taken effect. `expired`: its deadline had passed on arrival. `wait_ms` is
    above 0 for a message beyond its sender's rate limit. `profile` is the caller's current profile.
    """

    command: RoomCommands
    redelivered: bool = False
    expired: bool = False
    wait_ms: int = 0
    profile: UserProfile = UserProfile()


@dataclass(slots=True)
class RoomState:
    """The partition's knowledge of one room. `members` holds the users loaded so far; None stands for a non-member.

    `recent` is shared by all rooms of the partition. `stored` finds messages by id and is filled only while a
    redelivery is decided. `active_now` and `seen` (presence of the users that commands name) are loaded per batch.
    """

    room: Room | None
    members: dict[str, Member | None] = field(default_factory=dict)
    recent: RecentMessages = field(default_factory=RecentMessages)
    stored: dict[str, Message] = field(default_factory=dict)
    active_now: int = 0
    seen: dict[str, PresenceView] = field(default_factory=dict)


@dataclass(slots=True)
class Changes:
    """The outcome of a batch, carried out in this order: members, messages, rooms and read marks, then the rest.

    A member of None removes the record. `answers[i]` belongs to command i. The records of rooms and senders that follow
    from `messages` are not listed here; see `write_behind`.
    """

    members: dict[tuple[str, str], Member | None] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    rooms: dict[str, Room] = field(default_factory=dict)
    read_marks: dict[tuple[str, str], int] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


class Decision:
    """One command being decided. Its methods are the steps that several commands share."""

    def __init__(self, pending: PendingCommand, state: RoomState, changes: Changes, now_ms: int) -> None:
        self.pending = pending
        self.state = state
        self.changes = changes
        self.now_ms = now_ms
        self.caller = pending.command.caller
        self.room_id = pending.command.room_id

    # Reading --------------------------------------------------------------------------------------------------------

    def active_member(self, user_id: str) -> Member | None:
        """Return the user's membership, or None for a non-member or one who left."""
        member = self.state.members.get(user_id)
        return member if member is not None and member.active else None

    def is_online(self, user_id: str) -> bool:
        """Return whether the user is online, as far as presence was loaded."""
        seen = self.state.seen.get(user_id)
        return seen is not None and seen.status == "online"

    def is_creator(self, room: Room | None) -> bool:
        """Return whether the caller created the room."""
        return room is not None and room.created_by == self.caller.user_id

    def visible_room(self) -> Room:
        """Return the room. Raises NOT_FOUND unless the caller may see it."""
        room = self.state.room
        if room is None or not may_see(room, self.active_member(self.caller.user_id)):
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

        Raises FORBIDDEN for other users who see it, NOT_FOUND for the rest. An admin is no manager of a direct room,
        and does not see it either: its id would reveal its two users.
        """
        room = self.state.room
        if room is None or room.deleted:
            raise Refusal.not_found("room")
        manages = room.direct is None and (self.caller.is_admin or self.is_creator(room))
        if not (manages or may_see(room, self.active_member(self.caller.user_id))):
            raise Refusal.not_found("room")
        check_may_manage(room, self.caller)
        return room

    def view(self, room: Room) -> RoomView:
        """Return the room as the caller sees it."""
        return room_view(room, self.active_member(self.caller.user_id), self.state.active_now)

    # Writing --------------------------------------------------------------------------------------------------------

    def add_member(self, room: Room, user_id: str, profile: UserProfile, *, announce: bool) -> Member:
        """Make the user a member, and with `announce` send `member:joined` to the room."""
        member = Member(
            room_id=room.id,
            user_id=user_id,
            role=Role.CREATOR if user_id == room.created_by else Role.MEMBER,
            joined_at_ms=self.now_ms,
            read_seq=room.last_seq,
            profile=profile,
        )
        self.state.members[user_id] = member
        room.member_count += 1
        self.state.active_now += self.is_online(user_id)
        self.keep_member(member)
        self.keep_room(room)
        if announce:
            data = MemberJoinedData(chatroom_id=room.id, user_id=user_id, user=profile, member_count=room.member_count)
            self.announce("member:joined", data)
        return member

    def keep_room(self, room: Room) -> None:
        """Write the room's record."""
        self.changes.rooms[room.id] = room

    def keep_member(self, member: Member) -> None:
        """Write the member's record as it is now, with a read mark before the messages of this batch.

        Those messages are stored after the record, or never; their read marks follow them.
        """
        fresh = next((item.seq for item in self.changes.messages if item.room_id == member.room_id), None)
        read_seq = member.read_seq if fresh is None else min(member.read_seq, fresh - 1)
        self.changes.members[member.room_id, member.user_id] = structs.replace(member, read_seq=read_seq)

    def mark_read(self, member: Member, seq: int) -> None:
        """Move the member's read mark to `seq`."""
        member.read_seq = seq
        self.changes.read_marks[member.room_id, member.user_id] = seq

    # Deliveries -----------------------------------------------------------------------------------------------------

    def announce_left(self, room: Room, user_id: str, *, evict: bool) -> None:
        """Send `member:left` to the room, and with `evict` have gateways unsubscribe the user."""
        data = MemberLeftData(chatroom_id=room.id, user_id=user_id, member_count=room.member_count)
        self.announce("member:left", data)
        if evict:
            self.control(ControlKind.EVICT, {"userId": user_id})

    def announce(self, type_: str, data: WireStruct) -> None:
        """Send a frame to the subscribers of the room."""
        self.deliver(room_channel(self.room_id), DeliveryClass.TRANSIENT, frame(type_, data))

    def control(self, kind: ControlKind, data: dict[str, str] | None = None) -> None:
        """Send a control delivery to the gateways that have subscribers of the room."""
        self.deliver(room_channel(self.room_id), DeliveryClass.CONTROL, to_json(data or {}), key=kind)

    def deliver(self, channel: str, kind: DeliveryClass, frame_bytes: bytes, seq: int = 0, key: str = "") -> None:
        """Add a delivery to the changes."""
        self.changes.deliveries.append(Delivery(channel, kind, seq, key, frame_bytes))
