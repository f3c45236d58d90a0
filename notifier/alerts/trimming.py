"""Removes the oldest fired alerts of users with too many of them, after the alerts are announced."""

import asyncio
from collections.abc import Iterable

from notifier.alerts.store import DROPPED_AT_ONCE, AlertStore
from shared.errors import Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

INTERVAL_S = 1.0
USERS_MAX = 10_000


class FiredAlertTrimmer:
    """Trims the users whose alerts have fired, at most once per second.

    Bound: 10,000 users; further users are trimmed after their next fired alert.
    """

    def __init__(self, store: AlertStore) -> None:
        self._store = store
        self._users: dict[str, None] = {}
        self._noted = asyncio.Event()

    def note(self, user_ids: Iterable[str]) -> None:
        """Note users whose alerts have fired."""
        for user_id in user_ids:
            if len(self._users) < USERS_MAX:
                self._users[user_id] = None
                self._noted.set()

    async def run(self) -> None:
        """Trim until cancelled. Users wait while the database is unavailable."""
        while True:
            await self._noted.wait()
            await asyncio.sleep(INTERVAL_S)
            self._noted.clear()
            users, self._users = self._users, {}
            try:
                for user_id in users:
                    await self._trim(user_id)
            except Unavailable as error:
                log.warning("alerts_not_trimmed", reason=str(error))
                self.note(users)

    async def _trim(self, user_id: str) -> None:
        while await self._store.drop_oldest(user_id) == DROPPED_AT_ONCE:
            pass
