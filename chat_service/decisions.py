"""What a batch of room commands changes: commands and known state in, writes, deliveries and answers out. Pure.

The partition loads what `needs` names, calls `decide`, and carries `Changes` out in the order of its fields. Commands
are decided in the order they came, each on the state that those before it left.

Redelivery: a command that may have taken effect before is decided on what is on disk. A message found by its id is
delivered again under its seq; everything else is idempotent and is done again, its deliveries included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, assert_never

from msgspec import structs

from chat_service.messages import Message, RecentMessages, message_frame, message_view
from chat_service.rooms import Member, Role, Room, RoomType, check_may_manage, may_see, member_view, room_view
from shared.bus.delivery import ControlKind, Delivery, DeliveryClass, room_channel, user_channel
from shared.commands.chat import (
    AddMember,
    CreateRoom,
    DeleteRoom,
    Gone,
    JoinRoom,
    LeaveRoom,
    MarkRead,
    RemoveMember,
    RoomCommands,
    RoomHead,
    SendDirect,
    SendMessage,
    Sent,
    SetTyping,
    SubscribeRoom,
    UpdateRoom,
)
from shared.encoding import to_json
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import (
    ChatroomUpdatedData,
    MemberJoinedData,
    MemberLeftData,
    PresenceView,
    ReadMark,
    TypingMark,
    UserProfile,
    frame,
)
from shared.protocol.wire_struct import WireStruct

READ_BROADCAST_MEMBERS_MAX = 100
DIRECT_ROOM_NAME = "Direct message"


class PendingCommand(NamedTuple):
    """A command and the circumstances it came in.

    `wait_ms` is not 0 for a message over its sender's rate; `profile` is how the caller is shown now.
    """

    command: RoomCommands
    redelivered: bool = False
    expired: bool = False
    wait_ms: int = 0
    profile: UserProfile = UserProfile()


@dataclass(slots=True)
class RoomState:
    """What the partition knows of a room. `members` holds those asked for so far; None is known not to be one.

    `recent` is the partition's; `stored` finds messages by id, and only while a redelivery is decided;
    `active_now` and `seen` (presence of the users that commands name) are those of the moment.
    """

    room: Room | None
    members: dict[str, Member | None] = field(default_factory=dict)
    recent: RecentMessages = field(default_factory=RecentMessages)
    stored: dict[str, Message] = field(default_factory=dict)
    active_now: int = 0
    seen: dict[str, PresenceView] = field(default_factory=dict)


@dataclass(slots=True)
class Changes:
    """To be carried out in this order: members, messages, rooms and read marks; then deliveries and answers.

    `members` None means that the record goes. `answers[i]` belongs to command i; None is no answer. What follows from
    `messages` for their rooms and for their senders' read marks is not here: see `lag`.
    """

    members: dict[tuple[str, str], Member | None] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    rooms: dict[str, Room] = field(default_factory=dict)
    read_marks: dict[tuple[str, str], int] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)


def users_of(command: RoomCommands) -> tuple[str, ...]:
    """Whose membership a decision on this command looks at."""
    caller = command.caller.user_id
    match command:
        case CreateRoom():
            return (caller, *command.member_ids)
        case AddMember() | RemoveMember():
            return (caller, command.user_id)
        case SendDirect():
            return (caller, command.to_user_id)
        case _:
            return (caller,)


def writes_members(command: RoomCommands) -> bool:
    """Whether a decision on this command may begin or end memberships."""
    return isinstance(command, SendMessage | SendDirect | CreateRoom | JoinRoom | LeaveRoom | AddMember | RemoveMember)


def may_look_public(command: RoomCommands) -> bool:
    """Whether a decision on this command needs no membership while its room is public."""
    return isinstance(command, SubscribeRoom | SetTyping)


def shows_profile(command: RoomCommands) -> bool:
    """Whether what comes of the command shows its caller's profile."""
    return isinstance(command, SendMessage | SendDirect | CreateRoom | JoinRoom)


def shows_active_now(command: RoomCommands) -> bool:
    """Whether the answer tells how many members are online."""
    return isinstance(command, SubscribeRoom) or names_members(command)


def names_members(command: RoomCommands) -> bool:
    """Whether it matters for the answer who of those named is online."""
    return isinstance(command, CreateRoom | UpdateRoom | JoinRoom | LeaveRoom | AddMember | RemoveMember)


def decide(asked: list[PendingCommand], states: Mapping[str, RoomState], now_ms: int) -> Changes:
    """Decide a batch. `states` has every room and member that the commands name, and is changed to what then holds."""
    changes = Changes()
    for item in asked:
        try:
            answer = _Decision(item, states[item.command.room_id], changes, now_ms).answer()
        except Refusal as refusal:
            answer = None if item.expired else refusal
        changes.answers.append(answer)
    return changes


class _Decision:
    """One command on one room."""

    def __init__(self, asked: PendingCommand, state: RoomState, changes: Changes, now_ms: int) -> None:
        self.asked = asked
        self.state = state
        self.changes = changes
        self.now_ms = now_ms
        self.caller = asked.command.caller
        self.room_id = asked.command.room_id

    def answer(self) -> Any:
        """The reply, or None for none. Raises Refusal."""
        command = self.asked.command
        if self.asked.expired and not self.asked.redelivered:
            return None
        match command:
            case SendMessage():
                return self._send(command)
            case SendDirect():
                return self._send_direct(command)
            case SubscribeRoom():
                return self._subscribe()
            case CreateRoom():
                return self._create(command)
            case UpdateRoom():
                return self._update(command)
            case DeleteRoom():
                return self._delete()
            case JoinRoom():
                return self._join()
            case LeaveRoom():
                return self._leave()
            case AddMember():
                return self._add(command)
            case RemoveMember():
                return self._remove(command)
            case MarkRead():
                return self._read(command)
            case SetTyping():
                return self._typing(command)
            case _:
                assert_never(command)

    # Messages -------------------------------------------------------------------------------------------------------

    def _send(self, command: SendMessage | SendDirect) -> Sent | None:
        if (stored := self.state.stored.get(command.message_id)) is not None:
            self._catch_up(stored)
            self._deliver_message(stored)
            if (member := self._active(stored.user_id)) is not None and member.read_seq < stored.seq:
                self._mark_read(member, stored.seq)
            return Sent(message=message_view(stored), repeated=True)
        room = self._visible_room()
        if self.asked.expired:
            return None
        user_id, key = self.caller.user_id, command.client_message_id
        if key is not None and (stored := self.state.recent.find(room.id, user_id, key)) is not None:
            return Sent(message=message_view(stored), repeated=True)
        if self.asked.wait_ms:
            raise Refusal(ErrorCode.RATE_LIMITED, "too many messages", retry_after_ms=self.asked.wait_ms)
        member = self._active(user_id) or self._enter(user_id, self.asked.profile)
        room.last_seq += 1
        room.last_message_at_ms = room.active_at_ms = self.now_ms
        message = Message(
            id=command.message_id,
            room_id=room.id,
            seq=room.last_seq,
            user_id=user_id,
            user=self.asked.profile,
            text=command.message,
            client_message_id=key,
            created_at_ms=self.now_ms,
        )
        member.read_seq = message.seq
        self.changes.messages.append(message)
        self.state.recent.remember(message)
        self._deliver_message(message)
        return Sent(message=message_view(message), repeated=False)

    def _catch_up(self, stored: Message) -> None:
        """A crash came after the first message of a direct room and before the room itself, which is made anew."""
        room = self._room()
        if room is not None and stored.seq > room.last_seq:
            room.last_seq = stored.seq
            room.last_message_at_ms = room.active_at_ms = stored.created_at_ms
            self._keep_room(room)

    def _send_direct(self, command: SendDirect) -> Sent | None:
        if self.state.room is None and not self.asked.expired:
            if self.asked.wait_ms:
                raise Refusal(ErrorCode.RATE_LIMITED, "too many messages", retry_after_ms=self.asked.wait_ms)
            self.state.room = Room(
                id=self.room_id,
                name=DIRECT_ROOM_NAME,
                description="",
                type=RoomType.PRIVATE,
                created_by=self.caller.user_id,
                created_at_ms=self.now_ms,
                active_at_ms=self.now_ms,
                direct=(self.caller.user_id, command.to_user_id),
            )
            self._enter(self.caller.user_id, self.asked.profile, quietly=True)
            self._enter(command.to_user_id, UserProfile(), quietly=True)
        return self._send(command)

    def _deliver_message(self, message: Message) -> None:
        room = self._room()
        frame_bytes = message_frame(message)
        if room is not None and room.direct is not None:
            for user_id in room.direct:
                self._deliver(user_channel(user_id), DeliveryClass.LOSSLESS, frame_bytes, message.seq, room.id)
        else:
            self._deliver(room_channel(message.room_id), DeliveryClass.LOSSLESS, frame_bytes, message.seq)

    def _subscribe(self) -> RoomHead:
        room = self._visible_room()
        return RoomHead(seq=room.last_seq, active_now=self.state.active_now, is_direct=room.direct is not None)

    # Rooms ----------------------------------------------------------------------------------------------------------

    def _create(self, command: CreateRoom) -> Any:
        if self.state.room is None:
            self.state.room = Room(
                id=self.room_id,
                name=command.name,
                description=command.description,
                type=RoomType(command.type),
                created_by=self.caller.user_id,
                created_at_ms=self.now_ms,
                active_at_ms=self.now_ms,
            )
            self._enter(self.caller.user_id, self.asked.profile, quietly=True)
            for user_id in command.member_ids:
                if self._active(user_id) is None:
                    self._enter(user_id, UserProfile(), quietly=True)
        return self._view(self._visible_room())

    def _update(self, command: UpdateRoom) -> Any:
        room = self._managed_room()
        was_public = room.type is RoomType.PUBLIC
        room.name = room.name if command.name is None else command.name
        room.description = room.description if command.description is None else command.description
        room.type = room.type if command.type is None else RoomType(command.type)
        self._keep_room(room)
        if room.type is not RoomType.PUBLIC and (was_public or self.asked.redelivered):
            self._control(ControlKind.RECHECK, {})
        self._announce(
            "chatroom:updated",
            ChatroomUpdatedData(chatroom_id=room.id, name=room.name, description=room.description, type=room.type),
        )
        return self._view(room)

    def _delete(self) -> Gone:
        room = self._room()
        if self.asked.redelivered and room is not None and room.deleted:
            self._control(ControlKind.ROOM_DELETED, {})
            return Gone(id=room.id)
        room = self._managed_room()
        room.deleted = True
        self._keep_room(room)
        self._control(ControlKind.ROOM_DELETED, {})
        return Gone(id=room.id)

    # Members --------------------------------------------------------------------------------------------------------

    def _join(self) -> Any:
        room = self._room()
        member = self.state.members.get(self.caller.user_id)
        invited = member is not None or self._is_creator(room)
        if room is None or room.deleted or not (room.type is RoomType.PUBLIC or invited):
            raise Refusal.not_found("room")
        if member is None or not member.active:
            self._enter(self.caller.user_id, self.asked.profile)
        return self._view(room)

    def _leave(self) -> Any:
        room = self._visible_or_left_room()
        if room.direct is not None:
            raise Refusal(ErrorCode.FORBIDDEN, "a direct room cannot be left")
        member = self._active(self.caller.user_id)
        if member is not None:
            member.active = False
            room.member_count -= 1
            self.state.active_now -= self._is_online(member.user_id)
            self._keep_room(room)
            self._keep_member(member)
        if member is not None or self.asked.redelivered:
            self._announce_left(room, self.caller.user_id, evict=room.type is not RoomType.PUBLIC)
        return self._view(room)

    def _add(self, command: AddMember) -> Any:
        self._managed_room()
        member = self._active(command.user_id) or self._enter(command.user_id, UserProfile())
        return member_view(member, self.state.seen[command.user_id])

    def _remove(self, command: RemoveMember) -> Gone:
        room = self._managed_room()
        member = self.state.members.get(command.user_id)
        if member is None and not self.asked.redelivered:
            raise Refusal.not_found("member")
        if member is not None:
            if member.active:
                room.member_count -= 1
                self.state.active_now -= self._is_online(member.user_id)
            self._keep_room(room)
            self.state.members[command.user_id] = None
            self.changes.members[room.id, command.user_id] = None
        self._announce_left(room, command.user_id, evict=True)
        return Gone(id=command.user_id)

    def _read(self, command: MarkRead) -> ReadMark:
        room = self._visible_room()
        member = self._active(self.caller.user_id)
        if member is None:
            raise Refusal(ErrorCode.FORBIDDEN, "only members of the room have a read mark")
        if command.seq > room.last_seq:
            raise Refusal.invalid("seq", f"is beyond the room's last message, {room.last_seq}")
        if command.seq > member.read_seq or self.asked.redelivered:
            self._mark_read(member, max(command.seq, member.read_seq))
            mark = ReadMark(chatroom_id=room.id, user_id=member.user_id, seq=member.read_seq)
            bytes_ = frame("chat:read", mark)
            self._deliver(user_channel(member.user_id), DeliveryClass.TRANSIENT, bytes_, key=command.session_id)
            if room.direct is not None:
                for user_id in set(room.direct) - {member.user_id}:
                    self._deliver(user_channel(user_id), DeliveryClass.TRANSIENT, bytes_)
            elif room.member_count <= READ_BROADCAST_MEMBERS_MAX:
                self._deliver(room_channel(room.id), DeliveryClass.TRANSIENT, bytes_, key=member.user_id)
        return ReadMark(chatroom_id=room.id, user_id=member.user_id, seq=member.read_seq)

    def _typing(self, command: SetTyping) -> TypingMark:
        """Only whether the caller may; the partition paces and ends typing (see `typing`)."""
        room = self._visible_room()
        return TypingMark(chatroom_id=room.id, user_id=self.caller.user_id, is_typing=command.is_typing)

    def _enter(self, user_id: str, profile: UserProfile, *, quietly: bool = False) -> Member:
        room = self.state.room
        assert room is not None  # noqa: S101 - callers have looked
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
        self.state.active_now += self._is_online(user_id)
        self._keep_member(member)
        self._keep_room(room)
        if not quietly:
            data = MemberJoinedData(chatroom_id=room.id, user_id=user_id, user=profile, member_count=room.member_count)
            self._announce("member:joined", data)
        return member

    # Shared steps ---------------------------------------------------------------------------------------------------

    def _room(self) -> Room | None:
        return self.state.room

    def _active(self, user_id: str) -> Member | None:
        member = self.state.members.get(user_id)
        return member if member is not None and member.active else None

    def _is_online(self, user_id: str) -> bool:
        seen = self.state.seen.get(user_id)
        return seen is not None and seen.status == "online"

    def _is_creator(self, room: Room | None) -> bool:
        return room is not None and room.created_by == self.caller.user_id

    def _visible_room(self) -> Room:
        room = self.state.room
        if room is None or not (may_see(room, self._active(self.caller.user_id))):
            raise Refusal.not_found("room")
        return room

    def _visible_or_left_room(self) -> Room:
        room = self.state.room
        if room is None or room.deleted:
            raise Refusal.not_found("room")
        if room.type is not RoomType.PUBLIC and self.state.members.get(self.caller.user_id) is None:
            raise Refusal.not_found("room")
        return room

    def _managed_room(self) -> Room:
        """The room, for its creator or an admin, who both may manage it without being members.

        Nobody manages a direct room, so an admin is a stranger to it: whose room it is, its id would tell.
        """
        room = self.state.room
        if room is None or room.deleted:
            raise Refusal.not_found("room")
        manages = room.direct is None and (self.caller.is_admin or self._is_creator(room))
        if not (manages or may_see(room, self._active(self.caller.user_id))):
            raise Refusal.not_found("room")
        check_may_manage(room, self.caller)
        return room

    def _view(self, room: Room) -> Any:
        return room_view(room, self._active(self.caller.user_id), self.state.active_now)

    def _keep_room(self, room: Room) -> None:
        self.changes.rooms[room.id] = room

    def _keep_member(self, member: Member) -> None:
        """Keep the record as it is now. Of the messages of this batch it has read none: they are not stored yet when it
        is, and might never be; their read marks follow them."""
        fresh = next((item.seq for item in self.changes.messages if item.room_id == member.room_id), None)
        read_seq = member.read_seq if fresh is None else min(member.read_seq, fresh - 1)
        self.changes.members[member.room_id, member.user_id] = structs.replace(member, read_seq=read_seq)

    def _mark_read(self, member: Member, seq: int) -> None:
        member.read_seq = seq
        self.changes.read_marks[member.room_id, member.user_id] = seq

    def _announce_left(self, room: Room, user_id: str, *, evict: bool) -> None:
        data = MemberLeftData(chatroom_id=room.id, user_id=user_id, member_count=room.member_count)
        self._announce("member:left", data)
        if evict:
            self._control(ControlKind.EVICT, {"userId": user_id})

    def _announce(self, type_: str, data: WireStruct) -> None:
        self._deliver(room_channel(self.room_id), DeliveryClass.TRANSIENT, frame(type_, data))

    def _control(self, what: ControlKind, data: dict[str, Any]) -> None:
        """Tell the gateways themselves: `evict` a user's sockets, `recheck` every subscriber, room `deleted`."""
        self._deliver(room_channel(self.room_id), DeliveryClass.CONTROL, to_json(data), key=what)

    def _deliver(self, channel: str, kind: DeliveryClass, frame_bytes: bytes, seq: int = 0, key: str = "") -> None:
        self.changes.deliveries.append(Delivery(channel, kind, seq, key, frame_bytes))
