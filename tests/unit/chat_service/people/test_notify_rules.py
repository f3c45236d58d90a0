"""The one rule that decides whether a user may be notified."""

import pytest

from chat_service.people.notify_rules import NotificationKind, may_be_notified


@pytest.mark.parametrize("kind", NotificationKind)
def test_nobody_is_notified_of_oneself(kind: NotificationKind) -> None:
    assert may_be_notified(kind, "ben", "ann")
    assert may_be_notified(kind, "ben", "ben") == (kind in {NotificationKind.BADGE, NotificationKind.ACTIVITY})
