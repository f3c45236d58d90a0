"""Updates of activity state from delivery lines. Pure.

A line updates the state if it is the next one of its room. After a gap, the memberships and counts of all users are
queried again. An edit or deletion may change the mentions of a message, but its frame lacks the previous mentions, so
the counts of the users concerned are queried again.
"""

from collections.abc import Iterable

import msgspec

from gateway.fanout.activity_registry import NOT_IN_LOG, ActivityRegistry
from gateway.fanout.activity_rooms import ActivityUser, FollowedRoom
from gateway.fanout.frame_peek import (
    PeekedMessage,
    changes_mentions,
    edited_mentions,
    message_of,
    read_mark,
    user_who_left,
)
from shared.bus.delivery import (
    ChannelKind,
    ChannelName,
    ControlKind,
    Delivery,
    DeliveryKind,
    Eviction,
    MembershipChange,
    room_channel,
)
from shared.errors import Malformed

_ROOM = f"{ChannelKind.ROOM.value}:"
_USER = f"{ChannelKind.USER.value}:"

_eviction = msgspec.json.Decoder(Eviction)
_membership = msgspec.json.Decoder(MembershipChange)


class ActivityLines:
    """Applies lines to a registry."""

    def __init__(self, registry: ActivityRegistry) -> None:
        self._registry = registry

    def deliver(self, delivery: Delivery) -> None:
        """Apply a line. HOT."""
        rooms, channel = self._registry.rooms, delivery.channel
        match delivery.kind:
            case DeliveryKind.ORDERED if channel.startswith(_ROOM):
                room = rooms.get(channel)
                if room is None and self._registry.querying:
                    room = self._registry.expect(channel.removeprefix(_ROOM))
                if room is not None:
                    self._apply_entry(room, delivery.position, delivery.frame)
            case DeliveryKind.DIRECT:
                self._apply_direct(delivery)
            case DeliveryKind.HEAD:
                self._apply_head(rooms.get(channel), delivery.position)
            case DeliveryKind.DIRECT_HEAD:
                self._apply_head(rooms.get(room_channel(delivery.key)), delivery.position)
            case DeliveryKind.TRANSIENT if channel.startswith(_USER):
                self._apply_read(channel.removeprefix(_USER), delivery)
            case DeliveryKind.CONTROL:
                self._apply_control(delivery)

    # Entries --------------------------------------------------------------------------------------------------------

    def _apply_direct(self, delivery: Delivery) -> None:
        """Apply an entry of a direct room, which may be new to its user."""
        user = self._registry.users.get(delivery.channel.removeprefix(_USER))
        room = self._registry.rooms.get(room_channel(delivery.key))
        if user is not None and (room is None or user not in room.users):
            self._registry.query_pair(user, delivery.key, delivery.position)
            room = self._registry.expect(delivery.key)
        if room is not None:
            self._apply_entry(room, delivery.position, delivery.frame)

    def _apply_entry(self, room: FollowedRoom, position: int, frame: bytes) -> None:
        if position <= room.rev:
            return
        if not room.rev:
            room.base = position - 1  # an answer with a lower rev lacks the entries between its rev and this line
        elif position != room.rev + 1:
            self._doubt(room, position)
        room.rev = position
        if (message := message_of(frame)) is not None:
            self._apply_message(room, position, message)
        elif changes_mentions(frame):
            self._change_mentions(room, position, frame)
        elif (user_id := user_who_left(frame)) is not None:
            self._change_membership(user_id, room.id, is_joined=False)

    def _apply_message(self, room: FollowedRoom, position: int, message: PeekedMessage) -> None:
        registry = self._registry
        if message.seq > room.latest:
            room.latest, room.at = message.seq, message.at
            registry.note_changed(room)
        author = registry.users.get(message.user_id)
        if author is not None:
            registry.note_overtaken(author, room.id, position)
            if room in author.rooms and not author.counts_include(room, position):
                author.rooms[room] = max(author.rooms[room], message.seq)
                author.set_mentions(room, 0)
                registry.add_pending_count(author, room)
        for user in self._mentioned(room, message):
            if user is author:
                continue
            registry.note_overtaken(user, room.id, position)
            if room not in user.rooms or user.counts_include(room, position) or message.seq <= user.rooms[room]:
                continue
            user.set_mentions(room, user.mentions.get(room, 0) + 1)
            registry.add_pending_count(user, room)

    def _mentioned(self, room: FollowedRoom, message: PeekedMessage) -> Iterable[ActivityUser]:
        """Return the users here whom a message mentions, including users who are not members of the room."""
        if message.mentions_room:
            return self._registry.concerned(room.id)
        named = map(self._registry.users.get, message.mentions)
        return [user for user in named if user is not None]

    def _change_mentions(self, room: FollowedRoom, position: int, frame: bytes) -> None:
        named = edited_mentions(frame)
        for user in self._registry.concerned(room.id):
            self._registry.note_overtaken(user, room.id, position)
            if room in user.rooms and (room in user.mentions or user.id in named):
                self._registry.query_pair(user, room.id, position)

    # Losses ---------------------------------------------------------------------------------------------------------

    def _apply_head(self, room: FollowedRoom | None, position: int) -> None:
        if room is not None and position > room.rev:
            self._doubt(room, position)
            room.rev = position

    def _doubt(self, room: FollowedRoom, position: int) -> None:
        for user in self._registry.concerned(room.id):
            if room in user.rooms:
                self._registry.doubt(user, room, position)
            else:
                self._registry.note_overtaken(user, room.id, position)

    # Users ----------------------------------------------------------------------------------------------------------

    def _apply_read(self, user_id: str, delivery: Delivery) -> None:
        user = self._registry.users.get(user_id)
        mark = None if user is None else read_mark(delivery.frame)
        if user is None or mark is None or mark.user_id != user_id:
            return
        self._registry.note_overtaken(user, mark.chatroom_id, NOT_IN_LOG)
        room = self._registry.rooms.get(room_channel(mark.chatroom_id))
        if room is None or mark.seq <= user.rooms.get(room, mark.seq):
            return
        user.rooms[room] = mark.seq
        if room in user.mentions and mark.seq < room.latest:
            self._registry.query_pair(user, room.id)
        else:
            user.set_mentions(room, 0)
        self._registry.add_pending_count(user, room, delivery.key)

    def _apply_control(self, delivery: Delivery) -> None:
        try:
            kind, room_or_user = ChannelName.parse(delivery.channel)
        except Malformed:  # of a later release
            return
        match delivery.key, kind:
            case ControlKind.MEMBERSHIP.value, ChannelKind.USER:
                change = _membership.decode(delivery.frame)
                self._change_membership(room_or_user, change.chatroom_id, is_joined=change.is_joined)
            case ControlKind.EVICT.value, ChannelKind.ROOM:
                self._change_membership(_eviction.decode(delivery.frame).user_id, room_or_user, is_joined=False)
            case ControlKind.ROOM_DELETED.value, ChannelKind.ROOM:
                for user in self._registry.concerned(room_or_user):
                    self._change_membership(user.id, room_or_user, is_joined=False)

    def _change_membership(self, user_id: str, room_id: str, *, is_joined: bool) -> None:
        user, room = self._registry.users.get(user_id), self._registry.rooms.get(room_channel(room_id))
        if user is None:
            return
        if is_joined:
            self._registry.query_pair(user, room_id)
            return
        self._registry.note_overtaken(user, room_id, NOT_IN_LOG)
        for query in user.queries:
            query.left.add(room_id)
        if room is not None and room in user.rooms:
            self._registry.leave(user, room)
