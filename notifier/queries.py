"""Everything that gateways ask, each to its desk."""

import msgspec

from notifier.alerts.queries import AlertDesk
from notifier.inbox.queries import InboxDesk
from notifier.revocations.store import StandingStore
from shared.commands.notifier import (
    STANDINGS_AT_ONCE,
    AlertQueries,
    InboxQueries,
    ListStandings,
    NotifierQueries,
    StandingPage,
)


class Queries:
    """Answers `NotifierQueries`. Methods raise Refusal and Unavailable."""

    def __init__(self, inboxes: InboxDesk, alerts: AlertDesk, standings: StandingStore) -> None:
        self._inboxes = inboxes
        self._alerts = alerts
        self._standings = standings

    async def answer(self, query: NotifierQueries) -> msgspec.Struct:
        """The reply to one query."""
        if isinstance(query, InboxQueries):
            return await self._inboxes.answer(query)
        if isinstance(query, AlertQueries):
            return await self._alerts.answer(query)
        return await self._list_standings(query)

    async def _list_standings(self, query: ListStandings) -> StandingPage:
        found = await self._standings.after(query.after, STANDINGS_AT_ONCE + 1)
        return StandingPage(items=tuple(found[:STANDINGS_AT_ONCE]), more=len(found) > STANDINGS_AT_ONCE)
