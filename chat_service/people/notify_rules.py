"""Whether a user may be notified of something. Badges, mentions, pushes and activity ask this function alone. Pure."""

from enum import StrEnum


class NotificationKind(StrEnum):
    """The ways in which a user is notified of a room."""

    BADGE = "badge"
    MENTION = "mention"
    PUSH = "push"
    ACTIVITY = "activity"


def may_be_notified(kind: NotificationKind, user_id: str, author_id: str | None = None) -> bool:
    """Return whether a user may be notified, of what `author_id` has done if one user has: never of oneself."""
    match kind:
        case NotificationKind.MENTION | NotificationKind.PUSH:
            return user_id != author_id
        case NotificationKind.BADGE | NotificationKind.ACTIVITY:
            return True
