"""REST calls for the caller's notifications and price alerts."""

from typing import Literal

from gateway.rest.call import AlertId, Calls, Created, NotificationId, Paged, delete, get, post
from gateway.rest.envelope import Limit, Page, RequestStruct
from shared.commands import notifier
from shared.commands.chat import Gone
from shared.commands.command import ITEM_MAX_BYTES, Caller
from shared.commands.notifier import AlertDirection, AlertPrice
from shared.ids import Prefix, new_id
from shared.protocol.validation import Symbol


class NotificationsQuery(RequestStruct, frozen=True):
    """`unread` restricts the list to unread notifications."""

    page: Page = 1
    limit: Limit = 20
    unread: Literal["true", "false", "1", "0"] = "false"


class AlertsQuery(RequestStruct, frozen=True):
    """Page and page size."""

    page: Page = 1
    limit: Limit = 100


class NewAlert(RequestStruct, frozen=True):
    """Fires once, at the first price that reaches or passes `price` in `direction`."""

    symbol: Symbol
    direction: AlertDirection
    price: AlertPrice


class InboxCalls(Calls):
    """Notifications and price alerts."""

    @get("/v1/notifications", item_max_bytes=ITEM_MAX_BYTES)
    async def list_notifications(self, caller: Caller, query: NotificationsQuery) -> Paged[notifier.NotificationView]:
        """Return the caller's notifications, newest first."""
        command = notifier.ListNotifications(
            **self._backend.request_fields(caller),
            page=query.page,
            limit=query.limit,
            unread=query.unread in ("true", "1"),
        )
        found = await self._backend.notifier_request(command, notifier.NotificationPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @get("/v1/notifications/unread-count")
    async def count_unread(self, caller: Caller) -> notifier.UnreadCount:
        """Return the number of the caller's unread notifications."""
        command = notifier.CountUnread(**self._backend.request_fields(caller))
        return await self._backend.notifier_request(command, notifier.UnreadCount)

    @post("/v1/notifications/read-all")
    async def read_all(self, caller: Caller) -> notifier.UnreadCount:
        """Mark all notifications as read and return the unread count."""
        command = notifier.MarkAllRead(**self._backend.request_fields(caller))
        return await self._backend.notifier_request(command, notifier.UnreadCount)

    @post("/v1/notifications/{notificationId}/read")
    async def read_notification(self, caller: Caller, notification_id: NotificationId) -> notifier.NotificationView:
        """Mark one notification as read and return it. Idempotent."""
        command = notifier.MarkNotificationRead(**self._backend.request_fields(caller), notification_id=notification_id)
        return await self._backend.notifier_request(command, notifier.NotificationView)

    @get("/v1/alerts")
    async def list_alerts(self, caller: Caller, query: AlertsQuery) -> Paged[notifier.AlertView]:
        """Return the caller's price alerts, newest first."""
        command = notifier.ListAlerts(**self._backend.request_fields(caller), page=query.page, limit=query.limit)
        found = await self._backend.notifier_request(command, notifier.AlertPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @post("/v1/alerts")
    async def create_alert(self, caller: Caller, body: NewAlert) -> Created[notifier.AlertView]:
        """Create a price alert."""
        command = notifier.CreateAlert(
            **self._backend.request_fields(caller),
            alert_id=new_id(Prefix.ALERT),
            symbol=body.symbol,
            direction=body.direction,
            price=body.price,
        )
        return Created(await self._backend.notifier_request(command, notifier.AlertView))

    @delete("/v1/alerts/{alertId}")
    async def delete_alert(self, caller: Caller, alert_id: AlertId) -> Gone:
        """Delete an alert, active or fired."""
        command = notifier.DeleteAlert(**self._backend.request_fields(caller), alert_id=alert_id)
        await self._backend.notifier_request(command, notifier.AlertView)
        return Gone(id=alert_id)
