"""Revoked tokens and bans: `RevocationList` decides (pure), `RevocationListSync` loads it and follows its changes.

Until the list has been loaded for the first time nobody is refused: chat does not wait for notifier. What the list then
says also holds for the sockets that are open by then.
"""

import asyncio
from collections.abc import Callable

from gateway.backend import Backend
from shared.commands.command import GATEWAY, Caller
from shared.commands.notifier import ListRevocations, Revocation, RevocationPage
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 3.0


class RevocationList:
    """The last known standing of each user that has one."""

    def __init__(self) -> None:
        self._by_user: dict[str, Revocation] = {}
        self.version = 0

    def learn(self, standing: Revocation) -> bool:
        """Take a change; False if it is not newer than what is known."""
        known = self._by_user.get(standing.user_id)
        if known is not None and known.version >= standing.version:
            return False
        self._by_user[standing.user_id] = standing
        return True

    def check(self, caller: Caller, now_ms: int) -> None:
        """Raises FORBIDDEN for a banned user, UNAUTHORIZED for a token issued before its revocation."""
        standing = self._by_user.get(caller.user_id)
        if standing is None:
            return
        if standing.is_banned(now_ms):
            raise Refusal(ErrorCode.FORBIDDEN, "the user is banned")
        if standing.has_revoked(caller.issued_at_ms):
            raise Refusal(ErrorCode.UNAUTHORIZED, "the token has been revoked")


class RevocationListSync:
    """Loads the list at every connection to the broker; changes in between come as control deliveries."""

    def __init__(self, standings: RevocationList, backend: Backend, on_learned: Callable[[Revocation], None]) -> None:
        self._standings = standings
        self._backend = backend
        self._on_learned = on_learned
        self._due = asyncio.Event()
        self._due.set()

    async def connected(self) -> None:
        """Changes may have been missed. The hook for `Bus.on_connected`."""
        self._due.set()

    def learn(self, standing: Revocation) -> None:
        """Take a change."""
        if self._standings.learn(standing):
            self._on_learned(standing)

    async def run(self) -> None:
        """Load when due, until cancelled."""
        pause_s = RETRY_FIRST_S
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._load()
                pause_s = RETRY_FIRST_S
            except (Unavailable, Refusal) as error:
                log.warning("standings_not_loaded", reason=str(error), retry_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
                self._due.set()

    async def _load(self) -> None:
        more = True
        while more:
            command = ListRevocations(**self._backend.head(GATEWAY), after=self._standings.version)
            page = await self._backend.notifier_query(command, RevocationPage)
            for standing in page.items:
                self.learn(standing)
                self._standings.version = max(self._standings.version, standing.version)
            more = page.more and bool(page.items)
