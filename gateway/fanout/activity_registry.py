"""Users, rooms and sockets of the channel `activity`, with pending queries and frames. Pure."""

import sys

from gateway.fanout.activity_rooms import ActivitySink, ActivityUser, FollowedRoom, Follower, newest_time
from shared.bus.delivery import room_channel
from shared.commands.activity import RoomUnread

NOT_IN_LOG = sys.maxsize  # the position of a change that no entry makes: only a later query shows it


class ActivityRegistry:
    """The state of one gateway process. Bound: the rooms of the users with a socket on `activity`.

    `to_ask` holds pairs of (user id, room id) whose counts are unknown, and `asked` those being queried, with the
    position of the last line that changed them since. `flush` is the number of the next flush.
    """

    def __init__(self) -> None:
        self.users: dict[str, ActivityUser] = {}
        self.rooms: dict[str, FollowedRoom] = {}  # by channel
        self.followers: dict[ActivitySink, Follower] = {}
        self.to_ask: dict[tuple[str, str], None] = {}
        self.asked: dict[tuple[str, str], int] = {}
        self.asking = 0  # requests for all rooms of a user
        self.dirty: dict[FollowedRoom, None] = {}
        self.waiting: dict[Follower, None] = {}
        self.flush = 1
        self.unfollowed: list[str] = []
        self._unclaimed: set[str] = set()  # rooms noted in case an answer names them

    # Rooms ----------------------------------------------------------------------------------------------------------

    def expect(self, room_id: str) -> FollowedRoom:
        """Note a room's lines from now on, before an answer that may name it. Return the room."""
        name = room_channel(room_id)
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = FollowedRoom(room_id)
            self._unclaimed.add(name)
        return room

    def join(self, user: ActivityUser, count: RoomUnread) -> None:
        """Take an answer: the user is a member of a room, with these counts."""
        room = self.expect(count.room_id)
        self._unclaimed.discard(room_channel(room.id))
        if not room.rev:
            room.rev = room.base = count.rev
        elif count.rev < room.base:  # the lines in between are dropped as repeats
            self.ask(user, room.id, room.base)
        if count.rev > room.rev:
            user.ahead[room] = count.rev
        is_known = room in user.rooms
        before = user.rooms.get(room, 0), user.mentions.get(room, 0)
        user.rooms[room] = max(count.read_seq, before[0])
        user.set_mentions(room, count.mention_count)
        user.doubtful.discard(room)
        room.users[user] = None
        room.followers.update(user.followers)
        if count.seq > room.latest:
            room.latest, room.at = count.seq, newest_time(count)
            self.note_changed(room)
        elif room.latest:
            self._show_unseen(user, room, is_new=not is_known)
        if not is_known or before != (user.rooms[room], count.mention_count):
            self.owe(user, room)

    def _show_unseen(self, user: ActivityUser, room: FollowedRoom, *, is_new: bool) -> None:
        """Show a user's sockets a room with messages that is new to them, or that changed while it was in doubt."""
        for follower in user.followers:
            if is_new:
                follower.unseen[room] = None
            if room in follower.unseen:
                self.waiting[follower] = None

    def leave(self, user: ActivityUser, room: FollowedRoom) -> None:
        """End the membership of a user."""
        for by_room in (user.rooms, user.mentions, user.ahead):
            by_room.pop(room, None)
        user.doubtful.discard(room)
        room.users.pop(user, None)
        for follower in user.followers:
            room.followers.pop(follower, None)
            follower.owed.pop(room, None)
            follower.unseen.pop(room, None)
        if not room.users:
            self._drop(room)

    def drop_unclaimed(self) -> None:
        """Forget rooms that no answer has named, once no query that might name them is in progress."""
        if self.asking or not self._unclaimed:
            return
        wanted = {room_channel(room_id) for pairs in (self.asked, self.to_ask) for _, room_id in pairs}
        for name in self._unclaimed - wanted:
            self._drop(self.rooms[name])

    def _drop(self, room: FollowedRoom) -> None:
        name = room_channel(room.id)
        if self.rooms.get(name) is room:
            del self.rooms[name]
            self._unclaimed.discard(name)
            self.dirty.pop(room, None)
            self.unfollowed.append(name)

    def note_changed(self, room: FollowedRoom) -> None:
        """Show a room to its followers with the next flush."""
        room.changed = self.flush
        self.dirty[room] = None

    def owe(self, user: ActivityUser, room: FollowedRoom, without: str = "") -> None:
        """Send a user's sockets, apart from one session, the counts in a room."""
        for follower in user.followers:
            if follower.sink.session_id != without:
                follower.owed[room] = None
                self.waiting[follower] = None

    # Requests -------------------------------------------------------------------------------------------------------

    def ask(self, user: ActivityUser, room_id: str, position: int = NOT_IN_LOG) -> None:
        """Query a user's counts in a room, at least through the entry `position`."""
        self.note_overtaken(user, room_id, position)
        self.to_ask[user.id, room_id] = None

    def doubt(self, user: ActivityUser, room: FollowedRoom, position: int) -> None:
        """Query a room that the user may have left, and do not show it until the answer."""
        user.doubtful.add(room)
        self.ask(user, room.id, position)

    def note_overtaken(self, user: ActivityUser, room_id: str, position: int) -> None:
        """Note that pending answers must include the entry `position`."""
        pair = (user.id, room_id)
        if pair in self.asked:
            self.asked[pair] = max(position, self.asked[pair])
        for asking in user.asking:
            asking.changed[room_id] = max(position, asking.changed.get(room_id, 0))
