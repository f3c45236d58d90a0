"""The sockets that follow rooms on the channel `activity`, and the frames due to each. Pure; the clock is an argument.

Lines go in (`deliver`), frames come out (`flush`): at most one `room:activity` per socket per second, made of parts
that are encoded once for a room. The frames for a socket are computed from the state of its rooms when they can be
sent, so the newest state always arrives, and a socket that reads slowly queues nothing.

A query gives the initial counts; delivery lines update them. A message advances the newest seq; the user's own messages
and `chat:read` advance the read mark; a mention increments the mention count. After a gap, an edit, a deletion or a new
membership, the (user, room) pair is queried again (`pairs_to_query`, `apply`). A room is not shown to a user while
their membership is unconfirmed.

Cost: a dictionary look-up and 1 us for each message of a followed room; in a flush, one update of a dictionary for each
room with messages, and a pass over the rooms of each socket that is due.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.fanout.activity_lines import ActivityLines
from gateway.fanout.activity_registry import ActivityRegistry
from gateway.fanout.activity_rooms import ActivitySink, ActivityUser, Follower, PendingQuery
from shared.bus.delivery import room_channel
from shared.commands.activity import PAIRS_MAX, RoomUnread
from shared.protocol.activity_frames import ActivitySubscribedData

INTERVAL_S = 1.0


class Due(NamedTuple):
    """The frames to write to a socket."""

    sink: ActivitySink
    frames: list[bytes]


class Activity:
    """The sockets of one gateway process on `activity`."""

    def __init__(self) -> None:
        self._registry = registry = ActivityRegistry()
        self.deliver = ActivityLines(registry).deliver
        self.expect = registry.expect

    @property
    def is_used(self) -> bool:
        """Return whether any socket needs lines."""
        return bool(self._registry.users)

    @property
    def has_work(self) -> bool:
        """Return whether a flush may have something to send."""
        return bool(self._registry.dirty or self._registry.waiting)

    @property
    def has_pairs_to_query(self) -> bool:
        """Return whether the counts of any pair must be queried; see `take_pairs`."""
        return bool(self._registry.pairs_to_query)

    @property
    def user_ids(self) -> list[str]:
        """Return the users with a socket here."""
        return [user.id for user in self._registry.users.values() if user.followers]

    @property
    def sockets(self) -> int:
        """Return the number of sockets."""
        return len(self._registry.followers)

    def sinks_of(self, user_id: str) -> list[ActivitySink]:
        """Return the sockets of a user."""
        user = self._registry.users.get(user_id)
        return [] if user is None else [follower.sink for follower in user.followers]

    def unfollowed_of(self, counts: Iterable[RoomUnread]) -> list[str]:
        """Return the rooms of an answer that no socket here follows yet, excluding direct rooms (no channel needed)."""
        return self.unfollowed_rooms([(count.user_id, count.room_id) for count in counts if not count.is_direct])

    def unfollowed_rooms(self, pairs: Iterable[tuple[str, str]]) -> list[str]:
        """Return the rooms of these pairs that no socket here follows yet."""
        rooms = {room_id: self._registry.rooms.get(room_channel(room_id)) for _, room_id in pairs}
        return [room_id for room_id, room in rooms.items() if room is None or not room.users]

    def follows(self, user_id: str) -> bool:
        """Return whether a user has a socket or a pending query here."""
        return user_id in self._registry.users

    def take_abandoned_channels(self) -> list[str]:
        """Return the channels of rooms that no socket follows any more, once."""
        abandoned, self._registry.abandoned = self._registry.abandoned, []
        return [name for name in abandoned if name not in self._registry.rooms]

    # Sockets --------------------------------------------------------------------------------------------------------

    def follow(self, sink: ActivitySink) -> None:
        """Add a socket, between `begin` and `end` of a query for its user. Its `greeting` is due at once."""
        registry = self._registry
        user = registry.users[sink.user_id]
        self._remove(sink)
        follower = registry.followers[sink] = Follower(sink, user, registry.flush)
        registry.flush += 1
        user.followers[follower] = None
        for room in user.rooms:
            room.followers[follower] = None

    def greeting(self, sink: ActivitySink) -> ActivitySubscribedData:
        """Return the answer to a subscription."""
        return self._registry.users[sink.user_id].greeting()

    def forget(self, sink: ActivitySink) -> None:
        """Forget a socket, and its user with the last one."""
        user = self._registry.users.get(sink.user_id)
        if user is not None:
            self._remove(sink)
            self._discard(user)

    def _remove(self, sink: ActivitySink) -> None:
        follower = self._registry.followers.pop(sink, None)
        if follower is None:
            return
        self._registry.waiting.pop(follower, None)
        del follower.user.followers[follower]
        for room in follower.user.rooms:
            room.followers.pop(follower, None)

    def _discard(self, user: ActivityUser) -> None:
        """Forget a user without sockets and queries."""
        if not user.followers and not user.queries:
            for room in list(user.rooms):
                self._registry.leave(user, room)
            del self._registry.users[user.id]

    # Queries of all rooms of a user ---------------------------------------------------------------------------------

    def begin(self, user_id: str) -> PendingQuery:
        """Begin a query. Pass its answer to `apply_all`, then, in any case, `end` it."""
        user = self._registry.users.get(user_id)
        if user is None:
            user = self._registry.users[user_id] = ActivityUser(user_id)
        query = PendingQuery()
        user.queries.append(query)
        self._registry.querying[user] = None
        return query

    def apply_all(self, user_id: str, query: PendingQuery, counts: Iterable[RoomUnread]) -> None:
        """Apply the answer with all rooms of the user. Query again the rooms that a later line has changed."""
        user = self._registry.users[user_id]
        user.is_in_doubt = False
        found = {count.room_id: count for count in counts}
        for room in [room for room in user.rooms if room.id not in found and room.id not in query.changed]:
            self._registry.leave(user, room)
        for room_id, count in found.items():
            if room_id not in query.left:
                self._registry.join(user, count)
        for room_id, position in query.changed.items():
            if room_id not in found or position > found[room_id].rev:
                self._registry.query_pair(user, room_id, position)

    def end(self, user_id: str, query: PendingQuery) -> None:
        """End a query."""
        user = self._registry.users[user_id]
        user.queries = [other for other in user.queries if other is not query]
        if not user.queries:
            del self._registry.querying[user]
        self._discard(user)
        self._registry.drop_unclaimed()

    def suspend(self) -> None:
        """Show nothing until each user's rooms have been queried again, because lines may have been lost."""
        for user in self._registry.users.values():
            user.is_in_doubt = True
        for room in self._registry.rooms.values():
            room.rev = room.base = 0

    # Queries of pairs -----------------------------------------------------------------------------------------------

    def take_pairs(self) -> tuple[tuple[str, str], ...]:
        """Return at most 500 pairs of (user id, room id) to query. Pass their answer to `apply`."""
        pairs = tuple(self._registry.pairs_to_query)[:PAIRS_MAX]
        for pair in pairs:
            del self._registry.pairs_to_query[pair]
            self._registry.pairs_in_query[pair] = 0
        return pairs

    def requeue(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Take back the pairs of a failed query."""
        for pair in pairs:
            del self._registry.pairs_in_query[pair]
            self._registry.pairs_to_query[pair] = None

    def apply(self, pairs: Sequence[tuple[str, str]], counts: Iterable[RoomUnread]) -> None:
        """Apply the answer for these pairs. If it lacks a pair, the user has left the room.

        Query again the pairs that a later line has changed.
        """
        registry = self._registry
        found = {(count.user_id, count.room_id): count for count in counts}
        for pair in pairs:
            position = registry.pairs_in_query.pop(pair)
            user, count = registry.users.get(pair[0]), found.get(pair)
            if user is None:
                continue
            if position > (0 if count is None else count.rev):
                registry.pairs_to_query[pair] = None
            elif count is not None:
                registry.join(user, count)
            elif (room := registry.rooms.get(room_channel(pair[1]))) is not None and room in user.rooms:
                registry.leave(user, room)
        registry.drop_unclaimed()

    # Out ------------------------------------------------------------------------------------------------------------

    def flush(self, now_s: float, limit: int) -> list[Due]:
        """Return the frames due now, for at most `limit` sockets, longest-waiting first. HOT."""
        registry = self._registry
        number, registry.flush = registry.flush, registry.flush + 1
        waiting = registry.waiting
        for room in registry.dirty:
            room.encode()
            waiting.update(room.followers)
        registry.dirty.clear()
        due: list[Due] = []
        for follower in list(waiting):
            if follower.due_s > now_s or follower.user.is_in_doubt or follower.sink.is_behind:
                continue
            del waiting[follower]
            frames = follower.take_frames(number)
            if follower.pending_counts:  # counts of rooms in doubt
                waiting[follower] = None
            if frames:
                follower.due_s = now_s + INTERVAL_S
                due.append(Due(follower.sink, frames))
                if len(due) == limit:
                    break
        return due
