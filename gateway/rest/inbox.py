"""The caller's notifications and price alerts over REST."""

from typing import Literal

import msgspec
from aiohttp import web

from gateway.backend import Backend
from gateway.guard import Guard
from gateway.rest.envelope import Calls, In, Limit, Page, body_of, page_of, path_id, query_of, success
from shared import notifier_commands as notifier
from shared.errors import Refusal
from shared.ids import Prefix, new_id
from shared.notifier_commands import AlertDirection, AlertPrice
from shared.validation import Symbol


class NotificationsQuery(In, frozen=True):
    page: Page = 1
    limit: Limit = 20
    unread: Literal["true", "false", "1", "0"] = "false"


class AlertsQuery(In, frozen=True):
    page: Page = 1
    limit: Limit = 100


class NewAlert(In, frozen=True):
    symbol: Symbol
    direction: AlertDirection
    price: AlertPrice


class InboxCalls(Calls):
    """The handlers; each raises Refusal or Unavailable, of which `gateway.app` makes the failure envelope."""

    def __init__(self, guard: Guard, backend: Backend) -> None:
        super().__init__(guard)
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """The calls of this group."""
        return [
            web.get("/v1/notifications", self.list_notifications),
            web.get("/v1/notifications/unread-count", self.unread_count),
            web.post("/v1/notifications/read-all", self.read_all),
            web.post("/v1/notifications/{notification_id}/read", self.mark_read),
            web.get("/v1/alerts", self.list_alerts),
            web.post("/v1/alerts", self.create_alert),
            web.delete("/v1/alerts/{alert_id}", self.delete_alert),
        ]

    async def list_notifications(self, request: web.Request) -> web.Response:
        """The caller's inbox, newest first."""
        caller = self.caller(request)
        query = query_of(request, NotificationsQuery)
        command = notifier.ListNotifications(
            **self._backend.head(caller), page=query.page, limit=query.limit, unread=query.unread in ("true", "1")
        )
        found = await self._backend.notifier_query(command, notifier.NotificationPage)
        return page_of(found.items, query.page, query.limit, found.total)

    async def unread_count(self, request: web.Request) -> web.Response:
        """How many of the caller's notifications are not read."""
        command = notifier.CountUnread(**self._backend.head(self.caller(request)))
        return success(await self._backend.notifier_query(command, notifier.UnreadCount))

    async def read_all(self, request: web.Request) -> web.Response:
        """Mark all as read; answers with the unread count."""
        command = notifier.MarkAllRead(**self._backend.head(self.caller(request)))
        return success(await self._backend.notifier_query(command, notifier.UnreadCount))

    async def mark_read(self, request: web.Request) -> web.Response:
        """Mark one as read; answers with it."""
        caller = self.caller(request)
        command = notifier.MarkRead(
            **self._backend.head(caller), notification_id=_own_id(request, "notification_id", "notification")
        )
        return success(await self._backend.notifier_query(command, notifier.NotificationView))

    async def list_alerts(self, request: web.Request) -> web.Response:
        """The caller's price alerts, newest first."""
        caller = self.caller(request)
        query = query_of(request, AlertsQuery)
        command = notifier.ListAlerts(**self._backend.head(caller), page=query.page, limit=query.limit)
        found = await self._backend.notifier_query(command, notifier.AlertPage)
        return page_of(found.items, query.page, query.limit, found.total)

    async def create_alert(self, request: web.Request) -> web.Response:
        """Watch a price."""
        caller = self.caller(request)
        body = await body_of(request, NewAlert)
        command = notifier.CreateAlert(
            **self._backend.head(caller),
            alert_id=new_id(Prefix.ALERT),
            symbol=body.symbol,
            direction=body.direction,
            price=body.price,
        )
        return success(await self._backend.notifier_query(command, notifier.AlertView), status=201)

    async def delete_alert(self, request: web.Request) -> web.Response:
        """Forget an alert."""
        caller = self.caller(request)
        alert_id = _own_id(request, "alert_id", "alert")
        command = notifier.DeleteAlert(**self._backend.head(caller), alert_id=alert_id)
        await self._backend.notifier_query(command, notifier.AlertView)
        return success(Deleted(id=alert_id))


class Deleted(msgspec.Struct, frozen=True):
    id: str


def _own_id(request: web.Request, name: str, what: str) -> str:
    """The id of the path; what cannot be an id is nothing of the caller's."""
    try:
        return path_id(request, name, name)
    except Refusal:
        raise Refusal.not_found(what) from None
