"""REST queries on alerts: create, list, delete. Any replica answers, and informs the watcher."""

from collections.abc import Callable
from typing import assert_never

import msgspec

from notifier.alerts.book import AlertClosed, AlertOpened, AlertTerms
from notifier.alerts.store import Alert, AlertStore
from notifier.alerts.watcher import announce_change
from shared.bus.publisher import Publisher
from shared.commands.notifier import (
    AlertPage,
    AlertStatus,
    AlertView,
    AnyAlertRequest,
    CreateAlert,
    DeleteAlert,
    ListAlerts,
)
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.times import to_iso


class AlertQueryHandler:
    """Answers `AnyAlertRequest`. Methods raise Refusal and Unavailable."""

    def __init__(self, store: AlertStore, bus: Publisher, clock_ms: Callable[[], int], active_max: int) -> None:
        self._store = store
        self._bus = bus
        self._clock_ms = clock_ms
        self._active_max = active_max

    async def answer(self, query: AnyAlertRequest) -> msgspec.Struct:
        """Return the reply to one query."""
        match query:
            case CreateAlert():
                return await self._create(query)
            case ListAlerts():
                return await self._list(query)
            case DeleteAlert():
                return await self._delete(query)
            case _:
                assert_never(query)

    async def _create(self, query: CreateAlert) -> AlertView:
        """Store the alert, then send it to the watcher, so that every tick after the reply counts."""
        user_id = query.caller.user_id
        is_full = await self._store.has_active(user_id, self._active_max)
        if is_full and await self._store.find(user_id, query.alert_id) is None:  # else an earlier attempt stored it
            raise Refusal(ErrorCode.VALIDATION, f"at most {self._active_max} active alerts are allowed")
        fresh = AlertTerms(query.alert_id, user_id, query.symbol, query.direction, query.price)
        try:
            stored = await self._store.insert(Alert(fresh, self._clock_ms()))
        except Unavailable:
            # The insert may have succeeded; if not, this is harmless: firing checks the stored alert.
            announce_change(self._bus, AlertOpened(fresh))
            raise
        if stored is None:
            raise Refusal.not_found("alert")
        await announce_change(self._bus, AlertOpened(stored.terms))
        return _view(stored)

    async def _list(self, query: ListAlerts) -> AlertPage:
        skip = (query.page - 1) * query.limit
        alerts, total = await self._store.page(query.caller.user_id, skip, query.limit)
        return AlertPage(items=tuple(map(_view, alerts)), total=total)

    async def _delete(self, query: DeleteAlert) -> AlertView:
        """Delete the alert on disk, so that it cannot fire even if the watcher misses the change."""
        deleted = await self._store.delete(query.caller.user_id, query.alert_id)
        if deleted is None:
            raise Refusal.not_found("alert")
        announce_change(self._bus, AlertClosed(deleted.terms.id))
        return _view(deleted)


def _view(alert: Alert) -> AlertView:
    return AlertView(
        id=alert.terms.id,
        symbol=alert.terms.symbol,
        direction=alert.terms.direction,
        price=alert.terms.price,
        status=AlertStatus.ACTIVE if alert.fired is None else AlertStatus.FIRED,
        created_at=to_iso(alert.created_at_ms),
        fired_at=None if alert.fired is None else to_iso(alert.fired.at_ms),
    )
