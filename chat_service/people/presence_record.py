"""A user's presence, as it is stored and as clients see it. Pure."""

import msgspec

from shared.protocol.server_frames import PresenceData, PresenceView, frame
from shared.times import to_iso


class PresenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A user's presence.

    `announced_online` is the state last sent to the rooms; None (from earlier versions) if unknown.
    `unannounced_since_ms` is 0 once every change is announced.
    """

    user_id: str
    is_online: bool
    announced_online: bool | None
    last_seen_at_ms: int | None
    unannounced_since_ms: int

    @property
    def is_changed(self) -> bool:
        """Return whether the current state still has to be announced."""
        return self.is_online is not self.announced_online


def presence_view(user_id: str, record: PresenceRecord | None) -> PresenceView:
    """Return a user's presence as clients see it."""
    seen_ms = None if record is None else record.last_seen_at_ms
    return PresenceView(
        user_id=user_id,
        status="online" if record is not None and record.is_online else "offline",
        last_seen_at=None if seen_ms is None else to_iso(seen_ms),
    )


def presence_frame(record: PresenceRecord) -> bytes:
    """Return the `user:online` or `user:offline` frame."""
    if record.is_online:
        return frame("user:online", PresenceData(user_id=record.user_id, status="online"))
    seen = None if record.last_seen_at_ms is None else to_iso(record.last_seen_at_ms)
    return frame("user:offline", PresenceData(user_id=record.user_id, status="offline", last_seen_at=seen))
