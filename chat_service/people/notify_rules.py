"""The rule for notifications of users, used by badges and mentions; pushes and activity will ask it too. Pure."""

from enum import StrEnum


class NotificationKind(StrEnum):
    """The ways in which a user is notified of a room."""

    BADGE = "badge"
    MENTION = "mention"
    PUSH = "push"
    ACTIVITY = "activity"


def may_be_notified(kind: NotificationKind, user_id: str, author_id: str | None = None) -> bool:
    """Return whether a user may be notified.

    Nobody is notified of their own act (`author_id`; None if there is no single author).
    """
    match kind:
        case NotificationKind.MENTION | NotificationKind.PUSH:
            return user_id != author_id
        case NotificationKind.BADGE | NotificationKind.ACTIVITY:
            return True
