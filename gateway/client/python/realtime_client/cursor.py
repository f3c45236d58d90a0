"""The position of the application in an ordered channel, a room or the inbox. Pure."""

import msgspec

from realtime_client.protocol import RoomSubscription, Subscription


class Missed(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Gap that the server cannot replay: the items after `since` up to `seq`. The application loads them over REST."""

    channel: str
    since: int
    seq: int
    chatroom_id: str | None = None


class Fresh(msgspec.Struct, frozen=True):
    """A frame that the application has not seen, and the gap before it, if any."""

    missed: Missed | None = None


def missed_of(target: Subscription, since: int, seq: int) -> Missed:
    """Return the gap of a room or of the inbox."""
    room_id = target.chatroom_id if isinstance(target, RoomSubscription) else None
    return Missed(target.channel, since, seq, room_id)


class Cursor:
    """Position in an ordered channel; items up to `position` are repeats, and in a room changes up to `rev`.

    `head` holds the seq and rev of the room while messages up to that seq are being replayed. `is_subscribed` is False
    for a room whose messages arrive without a subscription (direct messages). Such rooms are resumed as well, the 50
    most recently active ones.
    """

    __slots__ = ("head", "is_subscribed", "position", "rev")

    def __init__(self, position: int | None, rev: int | None = None, *, is_subscribed: bool) -> None:
        self.position = position
        self.rev = rev
        self.head: tuple[int, int | None] | None = None
        self.is_subscribed = is_subscribed

    def fields(self) -> dict[str, int]:
        """Return the fields of a subscribe frame that resumes here. Only a rev covers edits and deletions too."""
        if self.rev is not None:
            return {"sinceRev": self.rev}
        return {} if self.position is None else {"since": self.position}

    def note_head(self, seq: int, rev: int | None) -> None:
        """Take over `rev` once every message up to `seq` has arrived."""
        self.head = (seq, rev)
        self._reach_head()

    def note_rev(self, rev: int | None) -> None:
        """Move to `rev`, unless it is missing or messages before it are still to come."""
        if rev is not None and self.head is None:
            self.rev = max(rev, self.rev or 0)

    def _reach_head(self) -> None:
        if self.head is not None and self.position is not None and self.position >= self.head[0]:
            rev, self.head = self.head[1], None
            self.note_rev(rev)

    def advance(self, seq: int, target: Subscription) -> Fresh | None:
        """Move to `seq` and report the gap before it, or return None if `seq` is a repeat."""
        before = self.position
        if before is not None and seq <= before:
            return None
        self.position = seq
        self._reach_head()
        if before is None or seq == before + 1:
            return Fresh()
        return Fresh(missed_of(target, before, seq - 1))
