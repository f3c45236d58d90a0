"""The caller's notifications and price alerts over REST."""

from typing import Literal

from gateway.rest.call import AlertId, Calls, Created, NotificationId, Paged, delete, get, post
from gateway.rest.envelope import In, Limit, Page
from shared.commands import notifier
from shared.commands.chat import Gone
from shared.commands.command import Caller
from shared.commands.notifier import AlertDirection, AlertPrice
from shared.ids import Prefix, new_id
from shared.protocol.validation import Symbol


class NotificationsQuery(In, frozen=True):
    page: Page = 1
    limit: Limit = 20
    unread: Literal["true", "false", "1", "0"] = "false"


class AlertsQuery(In, frozen=True):
    page: Page = 1
    limit: Limit = 100


class NewAlert(In, frozen=True):
    """Fires once, at a price at `price` or beyond it in `direction`."""

    symbol: Symbol
    direction: AlertDirection
    price: AlertPrice


class InboxCalls(Calls):
    """Notifications and alerts."""

    @get("/v1/notifications")
    async def list_notifications(self, caller: Caller, query: NotificationsQuery) -> Paged[notifier.NotificationView]:
        """The caller's inbox, newest first."""
        command = notifier.ListNotifications(
            **self._backend.head(caller), page=query.page, limit=query.limit, unread=query.unread in ("true", "1")
        )
        found = await self._backend.notifier_query(command, notifier.NotificationPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @get("/v1/notifications/unread-count")
    async def count_unread(self, caller: Caller) -> notifier.UnreadCount:
        """How many of the caller's notifications are not read."""
        command = notifier.CountUnread(**self._backend.head(caller))
        return await self._backend.notifier_query(command, notifier.UnreadCount)

    @post("/v1/notifications/read-all")
    async def read_all(self, caller: Caller) -> notifier.UnreadCount:
        """Mark all as read; answers with the unread count."""
        command = notifier.MarkAllRead(**self._backend.head(caller))
        return await self._backend.notifier_query(command, notifier.UnreadCount)

    @post("/v1/notifications/{notificationId}/read")
    async def read_notification(self, caller: Caller, notification_id: NotificationId) -> notifier.NotificationView:
        """Mark one as read; answers with it. Idempotent."""
        command = notifier.MarkNotificationRead(**self._backend.head(caller), notification_id=notification_id)
        return await self._backend.notifier_query(command, notifier.NotificationView)

    @get("/v1/alerts")
    async def list_alerts(self, caller: Caller, query: AlertsQuery) -> Paged[notifier.AlertView]:
        """The caller's price alerts, newest first."""
        command = notifier.ListAlerts(**self._backend.head(caller), page=query.page, limit=query.limit)
        found = await self._backend.notifier_query(command, notifier.AlertPage)
        return Paged(found.items, query.page, query.limit, found.total)

    @post("/v1/alerts")
    async def create_alert(self, caller: Caller, body: NewAlert) -> Created[notifier.AlertView]:
        """Watch a price."""
        command = notifier.CreateAlert(
            **self._backend.head(caller),
            alert_id=new_id(Prefix.ALERT),
            symbol=body.symbol,
            direction=body.direction,
            price=body.price,
        )
        return Created(await self._backend.notifier_query(command, notifier.AlertView))

    @delete("/v1/alerts/{alertId}")
    async def delete_alert(self, caller: Caller, alert_id: AlertId) -> Gone:
        """Forget an alert, active or fired."""
        command = notifier.DeleteAlert(**self._backend.head(caller), alert_id=alert_id)
        await self._backend.notifier_query(command, notifier.AlertView)
        return Gone(id=alert_id)
