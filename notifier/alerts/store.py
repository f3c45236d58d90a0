"""Alerts in MongoDB: the collection `alerts`, `_id` the alert id.

`unannounced` marks fired alerts whose users have not been notified.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

import msgspec
from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.errors import DuplicateKeyError

from notifier.alerts.book import AlertTerms, Fired, Hit
from shared.commands.market import AppliedTick
from shared.commands.notifier import AlertDirection, AlertStatus
from shared.mongo import DOCUMENTS_MAX, Database, Document, Indexes, chunks, date, translated, update_among
from shared.times import MILLISECONDS_PER_DAY

INDEXES: Indexes = {
    "alerts": [
        IndexModel([("userId", ASCENDING), ("createdAtMs", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("userId", ASCENDING), ("status", ASCENDING), ("firedAtMs", DESCENDING)]),
        IndexModel([("status", ASCENDING)]),
        IndexModel([("unannounced", ASCENDING)], sparse=True),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ],
}

FIRED_MAX = 1_000
DROPPED_AT_ONCE = 100


class Alert(msgspec.Struct, frozen=True):
    """A stored alert."""

    terms: AlertTerms
    created_at_ms: int
    fired: Fired | None = None


class AlertStore:
    """Reads and writes of alerts. Every method raises Unavailable when the database is unavailable.

    A fired alert is kept for `ttl_days`, an active one until it fires or is deleted. Bound: 1,000 fired alerts of a
    user, by `drop_oldest`.
    """

    def __init__(self, database: Database, ttl_days: int) -> None:
        self._alerts = database["alerts"]
        self._ttl_ms = ttl_days * MILLISECONDS_PER_DAY

    # For their users ------------------------------------------------------------------------------------------------

    async def insert(self, alert: Alert) -> Alert | None:
        """Store a new alert, and return the stored one, which an earlier attempt may have stored.

        Returns None when the id belongs to another user.
        """
        try:
            with translated():
                await self._alerts.insert_one(_from_alert(alert))
        except DuplicateKeyError:
            return await self.find(alert.terms.user_id, alert.terms.id)
        return alert

    async def find(self, user_id: str, alert_id: str) -> Alert | None:
        """Return an alert if it is the user's."""
        with translated():
            found = await self._alerts.find_one({"_id": alert_id})
        return _to_alert(found) if found and found["userId"] == user_id else None

    async def has_active(self, user_id: str, count: int) -> bool:
        """Return whether a user has at least `count` alerts that have not fired."""
        with translated():
            found = await self._alerts.count_documents(_having(user_id, AlertStatus.ACTIVE), limit=count)
        return found >= count

    async def drop_oldest(self, user_id: str) -> int:
        """Remove the user's fired alerts beyond the newest 1,000, at most 100 of them. Return how many."""
        newest_first = self._alerts.find(_having(user_id, AlertStatus.FIRED), {"_id": 1}).sort("firedAtMs", DESCENDING)
        with translated():
            surplus = await newest_first.skip(FIRED_MAX).limit(DROPPED_AT_ONCE).to_list(None)
            if surplus:
                await self._alerts.delete_many({"_id": {"$in": [document["_id"] for document in surplus]}})
        return len(surplus)

    async def page(self, user_id: str, skip: int, limit: int) -> tuple[list[Alert], int]:
        """Return a user's alerts, newest first, and their total."""
        chosen = {"userId": user_id}
        with translated():
            cursor = self._alerts.find(chosen).sort([("createdAtMs", -1), ("_id", -1)]).skip(skip).limit(limit)
            found, total = await asyncio.gather(cursor.to_list(None), self._alerts.count_documents(chosen))
        return [_to_alert(document) for document in found], total

    async def delete(self, user_id: str, alert_id: str) -> Alert | None:
        """Remove an alert and return it; None if it is not the user's."""
        found = await self.find(user_id, alert_id)
        if found is not None:
            with translated():
                await self._alerts.delete_one({"_id": alert_id})
        return found

    # For the watcher ------------------------------------------------------------------------------------------------

    async def active(self) -> AsyncIterator[list[AlertTerms]]:
        """Yield the terms of all alerts that have not fired, in chunks."""
        found = self._alerts.find({"status": AlertStatus.ACTIVE.value}, batch_size=DOCUMENTS_MAX)
        while True:
            with translated():
                some = await found.to_list(DOCUMENTS_MAX)
            if not some:
                return
            yield [_to_alert(document).terms for document in some]

    async def mark_fired(self, hits: Sequence[Hit], now_ms: int) -> None:
        """Store which tick fired each alert. Deleted and fired alerts stay unchanged."""
        for some in chunks(hits, DOCUMENTS_MAX):
            chosen = {"_id": {"$in": [hit.terms.id for hit in some]}}
            with translated():
                found = await self._alerts.find(chosen, {"status": 1}).to_list(None)
                active = {document["_id"] for document in found if document["status"] == AlertStatus.ACTIVE}
                writes = [self._firing(hit, now_ms) for hit in some if hit.terms.id in active]
                if writes:
                    await self._alerts.bulk_write(writes, ordered=False)

    async def unannounced(self) -> list[Fired]:
        """Return some fired alerts whose users have not been notified."""
        with translated():
            found = await self._alerts.find({"unannounced": True}).limit(DOCUMENTS_MAX).to_list(None)
        return [fired for document in found if (fired := _to_alert(document).fired) is not None]

    async def mark_announced(self, alert_ids: Collection[str]) -> None:
        """Mark these alerts as announced to their users."""
        await update_among(self._alerts, alert_ids, {"$unset": {"unannounced": ""}})

    def _firing(self, hit: Hit, now_ms: int) -> UpdateOne:
        fields = {
            "status": AlertStatus.FIRED.value,
            "firedAtMs": now_ms,
            "tick": {"price": hit.tick.price, "seq": hit.tick.seq, "atMs": hit.tick.at_ms},
            "unannounced": True,
            "expiresAt": date(now_ms + self._ttl_ms),
        }
        return UpdateOne({"_id": hit.terms.id}, {"$set": fields})


def _having(user_id: str, status: AlertStatus) -> Document:
    return {"userId": user_id, "status": status.value}


def _from_alert(alert: Alert) -> Document:
    return {
        "_id": alert.terms.id,
        "userId": alert.terms.user_id,
        "symbol": alert.terms.symbol,
        "direction": alert.terms.direction.value,
        "price": alert.terms.price,
        "status": AlertStatus.ACTIVE.value,
        "createdAtMs": alert.created_at_ms,
    }


def _to_alert(document: Document) -> Alert:
    terms = AlertTerms(
        id=document["_id"],
        user_id=document["userId"],
        symbol=document["symbol"],
        direction=AlertDirection(document["direction"]),
        price=document["price"],
    )
    tick = document.get("tick")
    if tick is None:
        return Alert(terms, document["createdAtMs"])
    applied = AppliedTick(terms.symbol, tick["price"], tick["seq"], tick["atMs"])
    return Alert(terms, document["createdAtMs"], Fired(Hit(terms, applied), document["firedAtMs"]))
