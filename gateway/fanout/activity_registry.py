"""Users, rooms and sockets of the channel `activity`, with pending queries and frames. Pure."""

import sys

from gateway.fanout.activity_rooms import ActivitySink, ActivityUser, FollowedRoom, Follower, newest_time
from shared.bus.delivery import room_channel
from shared.commands.activity import RoomUnread

# The position of a change without a log entry (a read mark, a membership): above every rev, so every answer under way
# counts as outdated.
NOT_IN_LOG = sys.maxsize


class ActivityRegistry:
    """The state of one gateway process. Bound: the rooms of the users with a socket on `activity`.

    `pairs_to_query` holds pairs of (user id, room id) whose counts are unknown, and `pairs_in_query` those being
    queried, with the position of the last line that changed them since. `querying` holds the users with a query of
    all their rooms in progress. `flush` is the number of the next flush.
    """

    def __init__(self) -> None:
        self.users: dict[str, ActivityUser] = {}
        self.rooms: dict[str, FollowedRoom] = {}  # by channel
        self.followers: dict[ActivitySink, Follower] = {}
        self.pairs_to_query: dict[tuple[str, str], None] = {}
        self.pairs_in_query: dict[tuple[str, str], int] = {}
        self.querying: dict[ActivityUser, None] = {}
        self.dirty: dict[FollowedRoom, None] = {}
        self.waiting: dict[Follower, None] = {}
        self.flush = 1
        self.abandoned: list[str] = []  # channels of rooms that no socket follows any more
        self._unclaimed: set[str] = set()  # rooms noted in case an answer names them

    # Rooms ----------------------------------------------------------------------------------------------------------

    def expect(self, room_id: str) -> FollowedRoom:
        """Return the room, created if need be, so that its lines are noted from now on.

        A pending answer may name it.
        """
        name = room_channel(room_id)
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = FollowedRoom(room_id)
            self._unclaimed.add(name)
        return room

    def concerned(self, room_id: str) -> list[ActivityUser]:
        """Return the users whose counts in a room may change: its users, and those with a query that may name it."""
        room = self.rooms.get(room_channel(room_id))
        users = dict(self.querying) if room is None else {**room.users, **self.querying}
        for user_id, queried in self.pairs_in_query:
            if queried == room_id and (user := self.users.get(user_id)) is not None:
                users[user] = None
        return list(users)

    def join(self, user: ActivityUser, count: RoomUnread) -> None:
        """Apply an answer: the user is a member of a room, with these counts."""
        room = self.expect(count.room_id)
        self._unclaimed.discard(room_channel(room.id))
        if not room.rev:
            room.rev = room.base = count.rev
        elif count.rev < room.base:
            # Entries between `count.rev` and `base` are missing here, and their lines would be dropped as repeats.
            self.query_pair(user, room.id, room.base)
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
            self.add_pending_count(user, room)

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
            follower.pending_counts.pop(room, None)
            follower.unseen.pop(room, None)
        if not room.users:
            self._drop(room)

    def drop_unclaimed(self) -> None:
        """Forget rooms that no answer has named, once no query that might name them is in progress."""
        if self.querying or not self._unclaimed:
            return
        wanted = {room_channel(room_id) for pairs in (self.pairs_in_query, self.pairs_to_query) for _, room_id in pairs}
        for name in self._unclaimed - wanted:
            self._drop(self.rooms[name])

    def _drop(self, room: FollowedRoom) -> None:
        name = room_channel(room.id)
        if self.rooms.get(name) is room:
            del self.rooms[name]
            self._unclaimed.discard(name)
            self.dirty.pop(room, None)
            self.abandoned.append(name)

    def note_changed(self, room: FollowedRoom) -> None:
        """Show a room to its followers with the next flush."""
        room.changed = self.flush
        self.dirty[room] = None

    def add_pending_count(self, user: ActivityUser, room: FollowedRoom, without: str = "") -> None:
        """Mark the counts of a room as due to all sockets of a user except the session `without`.

        A flush sends them.
        """
        for follower in user.followers:
            if follower.sink.session_id != without:
                follower.pending_counts[room] = None
                self.waiting[follower] = None

    # Queries --------------------------------------------------------------------------------------------------------

    def query_pair(self, user: ActivityUser, room_id: str, position: int = NOT_IN_LOG) -> None:
        """Request a query of a user's counts in a room that includes the entry `position`."""
        self.note_overtaken(user, room_id, position)
        self.pairs_to_query[user.id, room_id] = None

    def doubt(self, user: ActivityUser, room: FollowedRoom, position: int) -> None:
        """Query a room that the user may have left, and do not show it until the answer."""
        user.doubtful.add(room)
        self.query_pair(user, room.id, position)

    def note_overtaken(self, user: ActivityUser, room_id: str, position: int) -> None:
        """Note that pending answers must include the entry `position`."""
        pair = (user.id, room_id)
        if pair in self.pairs_in_query:
            self.pairs_in_query[pair] = max(position, self.pairs_in_query[pair])
        for query in user.queries:
            query.changed[room_id] = max(position, query.changed.get(room_id, 0))
