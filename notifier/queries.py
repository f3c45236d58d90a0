"""Dispatch of all queries to the handler of their subject."""

from collections.abc import Callable

import msgspec

from notifier.alerts.queries import AlertQueryHandler
from notifier.events.store import EventStore
from notifier.inbox.queries import InboxQueryHandler
from notifier.revocations.store import RevocationStore
from shared.commands.notifier import (
    REVOCATIONS_PAGE_MAX,
    AnyAlertRequest,
    AnyInboxRequest,
    AnyNotifierRequest,
    EraseNotices,
    ListRevocations,
    NoticesErased,
    RevocationPage,
)


class NotifierQueryHandler:
    """Answers `AnyNotifierRequest`. Methods raise Refusal and Unavailable."""

    def __init__(
        self,
        inboxes: InboxQueryHandler,
        alerts: AlertQueryHandler,
        revocations: RevocationStore,
        events: EventStore,
        clock_ms: Callable[[], int],
    ) -> None:
        self._inboxes = inboxes
        self._events = events
        self._clock_ms = clock_ms
        self._alerts = alerts
        self._revocations = revocations

    async def answer(self, query: AnyNotifierRequest) -> msgspec.Struct:
        """Return the reply to one query."""
        if isinstance(query, AnyInboxRequest):
            return await self._inboxes.answer(query)
        if isinstance(query, AnyAlertRequest):
            return await self._alerts.answer(query)
        if isinstance(query, EraseNotices):
            await self._events.erase(query.keys, self._clock_ms())
            return NoticesErased()
        return await self._list_revocations(query)

    async def _list_revocations(self, query: ListRevocations) -> RevocationPage:
        found = await self._revocations.after(query.after, REVOCATIONS_PAGE_MAX + 1)
        return RevocationPage(items=tuple(found[:REVOCATIONS_PAGE_MAX]), more=len(found) > REVOCATIONS_PAGE_MAX)
