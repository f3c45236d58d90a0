"""What gateways ask of notifier: queries on `notifier.query`; and who may no longer connect. Pure."""

from enum import StrEnum
from typing import Annotated

import msgspec

from shared.commands.command import Command
from shared.protocol.validation import Symbol, Time
from shared.protocol.wire_struct import WireStruct

# Inboxes ------------------------------------------------------------------------------------------------------------


class OpenInbox(Command, frozen=True, kw_only=True, tag="inbox.open"):
    """The head of the caller's inbox, and what came after `since`. Reply: `InboxHead`."""

    since: int | None = None


class InboxHead(WireStruct, frozen=True, kw_only=True):
    """`frames[i]` has seq `first + i`; `recovered` is False when more was missed than is replayed (1,000), or when some
    of it has expired: then `frames` is empty."""

    seq: int
    recovered: bool
    first: int
    frames: tuple[msgspec.Raw, ...]


class ReplayInbox(Command, frozen=True, kw_only=True, tag="inbox.replay"):
    """The caller's notifications with `after` < seq ≤ `through`, as finished frames. Reply: `Replay`.

    Its `first` lies beyond `after + 1` where what came before has expired.
    """

    after: int
    through: int


class ListNotifications(Command, frozen=True, kw_only=True, tag="inbox.list"):
    """The caller's inbox, newest first; `unread`: only what is not read. Reply: `NotificationPage`."""

    page: int
    limit: int
    unread: bool = False


class CountUnread(Command, frozen=True, kw_only=True, tag="inbox.unread"):
    """Reply: `UnreadCount`."""


class MarkNotificationRead(Command, frozen=True, kw_only=True, tag="inbox.read"):
    """Idempotent: it keeps the time of the first. Reply: `NotificationView`. NOT_FOUND for one of another user."""

    notification_id: str


class MarkAllRead(Command, frozen=True, kw_only=True, tag="inbox.read_all"):
    """All that is in the caller's inbox now. Reply: `UnreadCount`."""


class NotificationView(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of an inbox as REST shows it. `data` is that of the client frame of `type`.

    `title`, `message` and `priority` are those of a `notification:new`; other types have none.
    """

    id: str
    seq: int
    type: str
    created_at: Time
    read: bool
    data: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
    read_at: Time | None = None
    title: str | None = None
    message: str | None = None
    priority: str | None = None


class NotificationPage(WireStruct, frozen=True, kw_only=True):
    items: tuple[NotificationView, ...]
    total: int


class UnreadCount(WireStruct, frozen=True, kw_only=True):
    """Notifications that are not read."""

    unread_count: int


# Price alerts -------------------------------------------------------------------------------------------------------

AlertPrice = Annotated[float, msgspec.Meta(gt=0, le=1e12)]


class AlertDirection(StrEnum):
    """An alert fires at a price at its own or beyond: at or above it, at or below it."""

    ABOVE = "above"
    BELOW = "below"


class AlertStatus(StrEnum):
    """An alert fires once."""

    ACTIVE = "active"
    FIRED = "fired"


class CreateAlert(Command, frozen=True, kw_only=True, tag="alerts.create"):
    """Watch a price for the caller. Reply: `AlertView`; every tick that market_feed applies after it counts.

    `alert_id` is the caller's to make, once. VALIDATION when the caller has too many active alerts.
    """

    alert_id: str
    symbol: Symbol
    direction: AlertDirection
    price: AlertPrice


class ListAlerts(Command, frozen=True, kw_only=True, tag="alerts.list"):
    """The caller's alerts, newest first. Reply: `AlertPage`."""

    page: int = 1
    limit: int = 100


class DeleteAlert(Command, frozen=True, kw_only=True, tag="alerts.delete"):
    """Forget an alert, active or fired. Reply: `AlertView`. NOT_FOUND for one of another user."""

    alert_id: str


class AlertView(WireStruct, frozen=True, kw_only=True):
    """An alert as REST shows it."""

    id: str
    symbol: str
    direction: AlertDirection
    price: float
    status: AlertStatus
    created_at: Time
    fired_at: Time | None


class AlertPage(WireStruct, frozen=True, kw_only=True):
    items: tuple[AlertView, ...]
    total: int


# Standings ----------------------------------------------------------------------------------------------------------

FOR_EVER_MS = 253_402_300_799_000  # the end of the year 9999
REVOCATIONS_PAGE_MAX = 1000


class Revocation(WireStruct, frozen=True, kw_only=True):
    """What stands against a user. `version` grows with every change of any standing.

    A gateway keeps all of them: it binds CONTROL_CHANNEL, lists them once it is connected and whenever it was cut off
    (`ListRevocations`, from the highest version that it knows), and takes each change as a CONTROL delivery with key
    `standing` and the Standing as JSON. What it hears twice, or late, has no higher version than what it knows.
    """

    user_id: str
    version: int
    issued_before_ms: int = 0
    banned_until_ms: int = 0

    def is_banned(self, now_ms: int) -> bool:
        """Whether the user may not connect at all."""
        return now_ms < self.banned_until_ms

    def has_revoked(self, issued_at_ms: int) -> bool:
        """Whether a token issued then no longer counts. One that does not tell (0) never does again.

        JWTs tell whole seconds, cut off: a token of the second of its revocation counts as older.
        """
        return issued_at_ms < self.issued_before_ms


class ListRevocations(Command, frozen=True, kw_only=True, tag="standings.list"):
    """Standings with a version beyond `after`, lowest first, 1,000 at most. Reply: `RevocationPage`."""

    after: int = 0


class RevocationPage(WireStruct, frozen=True, kw_only=True):
    """`more`: ask again, after the last version of these."""

    items: tuple[Revocation, ...]
    more: bool


InboxQueries = OpenInbox | ReplayInbox | ListNotifications | CountUnread | MarkNotificationRead | MarkAllRead
AlertQueries = CreateAlert | ListAlerts | DeleteAlert
NotifierQueries = InboxQueries | AlertQueries | ListRevocations
