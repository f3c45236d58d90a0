"""What the records of rooms and members do not say yet of messages that are stored. Pure; time comes in.

A message tells all that follows from it: its room's `last_seq` and time, and that its sender has read up to it. So
these are written later, each half second for all messages of a room at once. They only ever grow and are written as
maxima, by anyone, in any order, any number of times. Who reads records adds what the messages beyond them tell
(`caught_up`); what a killed replica had not written, its successor puts right from the messages (`repair`). Only the
place in room lists cannot be told so, and is written together with the message where a room was quiet (`touch`).
The gain: on SecantusDB 0.25 ms a record, on any server two writes a batch.
"""

from collections.abc import Iterable
from typing import NamedTuple

from chat_service.messages import Message
from chat_service.rooms import Member, Room

LAG_MS = 500
LAG_MAX_MS = 60_000  # a room that was quiet for longer lags behind in nothing


class Post(NamedTuple):
    """Of a stored message what its room and its sender are to know."""

    room_id: str
    seq: int
    user_id: str
    created_at_ms: int


class Lag:
    """The newest posts of rooms, and the read marks of their senders, that are yet to be written.

    Bounded by what is posted in half a second; while the database is away nothing is posted.
    """

    def __init__(self) -> None:
        self._posts: dict[str, Post] = {}
        self._marks: dict[str, dict[str, int]] = {}
        self._touched_at_ms: dict[str, int] = {}

    def note(self, messages: Iterable[Message]) -> None:
        """These messages have been stored."""
        for message in messages:
            self.add(Post(message.room_id, message.seq, message.user_id, message.created_at_ms))

    def add(self, post: Post) -> None:
        """This is yet to be written."""
        newest = self._posts.get(post.room_id)
        if newest is None or post.seq > newest.seq:
            self._posts[post.room_id] = post
        marks = self._marks.setdefault(post.room_id, {})
        marks[post.user_id] = max(post.seq, marks.get(post.user_id, 0))

    def touch(self, room_ids: Iterable[str], now_ms: int) -> set[str]:
        """Of the rooms that are being posted to, those that have been quiet: to be moved up in the lists at once."""
        quiet = now_ms - LAG_MS
        self._touched_at_ms = {room_id: at_ms for room_id, at_ms in self._touched_at_ms.items() if at_ms > quiet}
        touched = set(room_ids) - self._touched_at_ms.keys()
        self._touched_at_ms |= dict.fromkeys(touched, now_ms)
        return touched

    def rooms(self) -> set[str]:
        """Every room that something is yet to be written of."""
        return set(self._posts)

    def take(self, room_ids: Iterable[str]) -> tuple[list[Post], dict[tuple[str, str], int]]:
        """What is to be written now: first the read marks, by (room id, user id), then the posts.

        A room's record ahead of its senders' read marks would hide that these are behind. `put_back` what fails.
        """
        posts: list[Post] = []
        marks: dict[tuple[str, str], int] = {}
        for room_id in room_ids:
            if (post := self._posts.pop(room_id, None)) is not None:
                posts.append(post)
                marks |= {(room_id, user_id): seq for user_id, seq in self._marks.pop(room_id).items()}
        return posts, marks

    def put_back(self, posts: Iterable[Post], marks: dict[tuple[str, str], int]) -> None:
        """What was taken has not been written."""
        at_ms = {post.room_id: post.created_at_ms for post in posts}
        for (room_id, user_id), seq in marks.items():
            self.add(Post(room_id, seq, user_id, at_ms[room_id]))
        for post in posts:
            self.add(post)


def may_lag(room: Room, now_ms: int) -> bool:
    """Whether a record as it was read may not know of the newest messages."""
    return room.active_at_ms > now_ms - LAG_MAX_MS


def caught_up(room: Room, member: Member | None, beyond: Iterable[Post]) -> None:
    """Let records know what the messages beyond the room's tell."""
    for post in beyond:
        if post.seq > room.last_seq:
            room.last_seq = post.seq
            room.last_message_at_ms = room.active_at_ms = post.created_at_ms
        if member is not None and member.user_id == post.user_id:
            member.read_seq = max(member.read_seq, post.seq)
