"""The state behind the channel `activity`: rooms, users and their sockets, and the frames made of it. Pure."""

from typing import Protocol

from msgspec import UNSET

from gateway.fanout.lane import Sink
from shared.commands.activity import RoomUnread
from shared.encoding import to_json
from shared.protocol.activity_frames import ROOMS_SHOWN_MAX, ActivityRoom, ActivitySubscribedData, RoomUnreadData
from shared.protocol.server_frames import frame
from shared.times import to_iso


class ActivitySink(Sink, Protocol):
    """A socket on `activity`."""

    @property
    def is_behind(self) -> bool:
        """Return whether the socket has not read earlier frames, so that more would only queue."""

    @property
    def is_gone(self) -> bool:
        """Return whether the client can no longer be reached."""


class FollowedRoom:
    """A room as all its followers see it. `changed` is the number of the flush that shows its newest message.

    `rev` is the newest entry seen; 0: none. `base` is where tracking began: the rev of the first query's answer, or the
    position before the first line. An answer with a rev below `base` lacks entries that were never seen here, so the
    pair is queried again. `latest` and `at` are the seq and time of the newest message, and `part` is the room's part
    of a `room:activity` frame, encoded once for all.
    """

    __slots__ = ("at", "base", "changed", "followers", "id", "latest", "part", "rev", "users")

    def __init__(self, room_id: str) -> None:
        self.id = room_id
        self.rev = self.base = 0
        self.latest = 0
        self.at = b""
        self.changed = 0
        self.part = b""
        self.users: dict[ActivityUser, None] = {}
        self.followers: dict[Follower, None] = {}

    def encode(self) -> None:
        """Encode `part` again."""
        self.part = b'{"chatroomId":%b,"at":"%b","latest":%d}' % (to_json(self.id), self.at, self.latest)


class PendingQuery:
    """A pending query of all rooms of a user, and the changes by lines since it began.

    `changed` holds, by room id, the position of the last line that changed the user's counts there; an older answer for
    the room is outdated, and the room is queried again. `left` holds the rooms that the user has left.
    """

    __slots__ = ("changed", "left")

    def __init__(self) -> None:
        self.changed: dict[str, int] = {}
        self.left: set[str] = set()


class ActivityUser:
    """A user with a socket on `activity`.

    `rooms` holds the read mark in each of the user's rooms, and `mentions` the numbers of unread mentions above 0. The
    counts of the rooms in `ahead` include the entries through a rev that has not arrived yet. `doubtful` rooms are not
    shown until the next answer; `is_in_doubt`: no room is shown. Memory: 50 KB for 500 rooms.
    """

    __slots__ = ("ahead", "doubtful", "followers", "id", "is_in_doubt", "mentions", "queries", "rooms")

    def __init__(self, user_id: str) -> None:
        self.id = user_id
        self.rooms: dict[FollowedRoom, int] = {}
        self.mentions: dict[FollowedRoom, int] = {}
        self.ahead: dict[FollowedRoom, int] = {}
        self.doubtful: set[FollowedRoom] = set()
        self.is_in_doubt = False
        self.queries: list[PendingQuery] = []
        self.followers: dict[Follower, None] = {}

    def counts_include(self, room: FollowedRoom, position: int) -> bool:
        """Return whether the counts of a room already include an entry that arrives now.

        Forget the room's `ahead` once its entry has arrived.
        """
        if (ahead := self.ahead.get(room)) is None:
            return False
        if position >= ahead:
            del self.ahead[room]
        return position <= ahead

    def unread_in(self, room: FollowedRoom) -> int:
        """Return the number of messages after the read mark."""
        return max(room.latest - self.rooms[room], 0)

    def set_mentions(self, room: FollowedRoom, count: int) -> None:
        """Set the number of unread mentions in a room."""
        if count:
            self.mentions[room] = count
        else:
            self.mentions.pop(room, None)

    def greeting(self) -> ActivitySubscribedData:
        """Return the answer to a subscription."""
        newest_first = sorted(self.rooms, key=lambda room: (room.at, room.id), reverse=True)
        rooms = (
            ActivityRoom(
                chatroom_id=room.id,
                seq=room.latest,
                unread_count=self.unread_in(room),
                mention_count=self.mentions.get(room, 0),
                last_message_at=room.at.decode() if room.at else UNSET,
            )
            for room in newest_first[:ROOMS_SHOWN_MAX]
        )
        return ActivitySubscribedData(
            rooms=tuple(rooms),
            unread_total=sum(map(self.unread_in, self.rooms)),
            mention_total=sum(self.mentions.values()),
        )


class Follower:
    """A socket on `activity`. Changes up to flush `sent` have been sent; more may be sent from `due_s` on.

    `pending_counts` holds the rooms whose counts still have to be sent. `unseen` holds rooms still to be shown: rooms
    new to the user, and rooms that changed while the membership was unconfirmed.
    """

    __slots__ = ("due_s", "pending_counts", "sent", "sink", "unseen", "user")

    def __init__(self, sink: ActivitySink, user: ActivityUser, sent: int) -> None:
        self.sink = sink
        self.user = user
        self.sent = sent
        self.due_s = 0.0
        self.pending_counts: dict[FollowedRoom, None] = {}
        self.unseen: dict[FollowedRoom, None] = {}

    def take_frames(self, flush: int) -> list[bytes]:
        """Return the due frames and note them as sent. HOT: visits all rooms of the user, 15 us for 500.

        Counts come after the messages that they count, so a client may compute its read mark from them.
        """
        user, since = self.user, self.sent
        self.sent = flush
        changed = [room for room in user.rooms if room.changed > since]
        if self.unseen or user.doubtful:
            changed = self._without_doubtful(dict.fromkeys([*self.unseen, *changed]))
        parts = b",".join([room.part for room in changed])
        frames = [b'{"type":"room:activity","data":{"rooms":[%b]}}' % parts] if parts else []
        for room in [room for room in self.pending_counts if room not in user.doubtful]:
            del self.pending_counts[room]
            if room in user.rooms:
                frames.append(unread_frame(user, room))
        return frames

    def _without_doubtful(self, rooms: dict[FollowedRoom, None]) -> list[FollowedRoom]:
        """Return the rooms to show now; the others wait until the user's membership is confirmed."""
        doubtful = self.user.doubtful
        self.unseen = {room: None for room in rooms if room in doubtful}
        return [room for room in rooms if room not in doubtful]


def unread_frame(user: ActivityUser, room: FollowedRoom) -> bytes:
    """Return the frame with a user's counts in a room."""
    data = RoomUnreadData(
        chatroom_id=room.id, unread_count=user.unread_in(room), mention_count=user.mentions.get(room, 0)
    )
    return frame("room:unread", data)


def newest_time(counts: RoomUnread) -> bytes:
    """Return the time of a room's last message, empty without one."""
    return b"" if counts.last_message_at_ms is None else to_iso(counts.last_message_at_ms).encode()
