"""Service requests for notifier on `notifier.queries`, and the revocations that gateways enforce. Pure."""

from enum import StrEnum
from typing import Annotated

import msgspec

from shared.commands.command import (
    MESSAGE_ESTIMATE_BYTES,
    SMALL_ANSWER_BYTES,
    ServiceRequest,
    replay_max_bytes,
)
from shared.protocol.validation import Symbol, Time
from shared.protocol.wire_struct import WireStruct

# Reserved for an inbox's missed items until their size is known. Only internal services fill inboxes, so few clients
# miss anything near the 8 MB of a replay.
MISSED_BYTES = 512 * 1024

# Inboxes ------------------------------------------------------------------------------------------------------------


class OpenInbox(ServiceRequest, frozen=True, kw_only=True, tag="inbox.open"):
    """Get the head of the caller's inbox, and the entries after `since`. Reply: `InboxHead`."""

    since: int | None = None

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return SMALL_ANSWER_BYTES if self.since is None else MISSED_BYTES


class InboxHead(WireStruct, frozen=True, kw_only=True):
    """The head of an inbox. `frames[i]` has seq `first + i`.

    `recovered` is False, and `frames` empty, when more than 1,000 entries or 8 MB were missed, some have expired, or
    `since` is beyond the head.
    """

    seq: int
    recovered: bool
    first: int
    frames: tuple[msgspec.Raw, ...]


class ReplayInbox(ServiceRequest, frozen=True, kw_only=True, tag="inbox.replay"):
    """Get the caller's entries with `after` < seq ≤ `through`, as finished frames. Reply: `ReplayedFrames`.

    Its `first` is above `after + 1` when earlier entries have expired.
    """

    after: int
    through: int

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return replay_max_bytes(self.after, self.through, MESSAGE_ESTIMATE_BYTES)


class ListNotifications(ServiceRequest, frozen=True, kw_only=True, tag="inbox.list"):
    """List the caller's inbox, newest first, or only its `unread` entries. Reply: `NotificationPage`."""

    page: int
    limit: int
    unread: bool = False

    @property
    def answer_estimate_bytes(self) -> int:
        """See `ServiceRequest`."""
        return self.limit * MESSAGE_ESTIMATE_BYTES


class CountUnread(ServiceRequest, frozen=True, kw_only=True, tag="inbox.unread"):
    """Count the caller's unread entries. Reply: `UnreadCount`."""


class MarkNotificationRead(ServiceRequest, frozen=True, kw_only=True, tag="inbox.read"):
    """Mark an entry as read; a repeated call keeps the first time. Reply: `NotificationView`.

    Raises NOT_FOUND for an entry of another user.
    """

    notification_id: str


class MarkAllRead(ServiceRequest, frozen=True, kw_only=True, tag="inbox.read_all"):
    """Mark everything in the caller's inbox as read. Reply: `UnreadCount`."""


class NotificationView(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of an inbox as REST shows it. `data` is the `data` of the client frame.

    Only entries of type `notification:new` have `title`, `message` and `priority`.
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
    """A page of an inbox; `total` counts all pages."""

    items: tuple[NotificationView, ...]
    total: int


class UnreadCount(WireStruct, frozen=True, kw_only=True):
    """The number of unread entries."""

    unread_count: int


# Price alerts -------------------------------------------------------------------------------------------------------

AlertPrice = Annotated[float, msgspec.Meta(gt=0, le=1e12)]


class AlertDirection(StrEnum):
    """The direction of an alert: it fires at or above its price, or at or below it."""

    ABOVE = "above"
    BELOW = "below"


class AlertStatus(StrEnum):
    """The state of an alert, which fires once."""

    ACTIVE = "active"
    FIRED = "fired"


class CreateAlert(ServiceRequest, frozen=True, kw_only=True, tag="alerts.create"):
    """Create a price alert. Every tick that market_feed applies after the reply counts. Reply: `AlertView`.

    The caller creates `alert_id`. Raises VALIDATION when the caller has too many active alerts.
    """

    alert_id: str
    symbol: Symbol
    direction: AlertDirection
    price: AlertPrice


class ListAlerts(ServiceRequest, frozen=True, kw_only=True, tag="alerts.list"):
    """List the caller's alerts, newest first. Reply: `AlertPage`."""

    page: int = 1
    limit: int = 100


class DeleteAlert(ServiceRequest, frozen=True, kw_only=True, tag="alerts.delete"):
    """Delete an alert, active or fired. Reply: `AlertView`. Raises NOT_FOUND for one of another user."""

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
    """A page of alerts; `total` counts all pages."""

    items: tuple[AlertView, ...]
    total: int


# Revocations --------------------------------------------------------------------------------------------------------

FOR_EVER_MS = 253_402_300_799_000  # the end of the year 9999
REVOCATIONS_PAGE_MAX = 1000


class Revocation(WireStruct, frozen=True, kw_only=True):
    """The bans and revoked tokens of one user. `version` grows with every change of any revocation.

    A gateway holds the records of all users. It binds CONTROL_CHANNEL, lists the records after every connect
    (`ListRevocations`, from the highest version that it has), and applies each change: a CONTROL delivery with the key
    `standing` and a Revocation as JSON. The version identifies duplicate and late changes.
    """

    user_id: str
    version: int
    issued_before_ms: int = 0
    banned_until_ms: int = 0

    def is_banned(self, now_ms: int) -> bool:
        """Return whether the user may not connect at all."""
        return now_ms < self.banned_until_ms

    def has_revoked(self, issued_at_ms: int) -> bool:
        """Return whether a token issued then is revoked. Any revocation revokes a token without a time (0).

        JWTs carry whole seconds, rounded down: a token issued in the second of its revocation counts as older.
        """
        return issued_at_ms < self.issued_before_ms


class ListRevocations(ServiceRequest, frozen=True, kw_only=True, tag="standings.list"):
    """List revocations with a version above `after`, lowest first, at most 1,000. Reply: `RevocationPage`."""

    after: int = 0


class RevocationPage(WireStruct, frozen=True, kw_only=True):
    """A page of revocations. `more`: query again from the last version of this page."""

    items: tuple[Revocation, ...]
    more: bool


ERASED_MAX = 500


class EraseNotices(ServiceRequest, frozen=True, kw_only=True, tag="notices.erase"):
    """Erase the text of the notifications of these events, given by their keys, at most 500; idempotent.

    Events that have yet to arrive are dropped when they do. Sent by chat_service when a message is deleted. Reply:
    `NoticesErased`.
    """

    keys: tuple[str, ...]


class NoticesErased(WireStruct, frozen=True, kw_only=True):
    """No inbox shows the text any more."""


AnyInboxRequest = OpenInbox | ReplayInbox | ListNotifications | CountUnread | MarkNotificationRead | MarkAllRead
AnyAlertRequest = CreateAlert | ListAlerts | DeleteAlert
AnyNotifierRequest = AnyInboxRequest | AnyAlertRequest | ListRevocations | EraseNotices
