"""Revoked tokens and bans: `RevocationList` decides, `RevocationListSync` loads the list and follows its changes.

The gateway does not listen before the first load, so that no banned user is authenticated. After a lost connection to
the broker it loads the list again; until then its sockets receive no direct messages and nothing of the rooms that they
were subscribed to. Notifications, community events, prices, `activity` and new subscriptions do not wait for the load.
Whenever a load fails, it is retried, and meanwhile tokens are checked against the list that the gateway has. The list
also applies to sockets that are already open: a load closes those of banned users.
"""

import asyncio
from collections.abc import Callable

from gateway.backend import Backend
from shared.backoff import Backoff
from shared.commands.command import GATEWAY, Caller
from shared.commands.notifier import ListRevocations, Revocation, RevocationPage
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.telemetry import logs
from shared.waiting import is_set_within

log = logs.get(__name__)

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 3.0
REFRESH_S = 5.0
COMPLAIN_S = 5.0


class RevocationList:
    """The latest revocation record of each user who has one."""

    def __init__(self) -> None:
        self._by_user: dict[str, Revocation] = {}
        self.version = 0

    def learn(self, record: Revocation) -> bool:
        """Store a record. Return False if a record of this or a later version is known already."""
        known = self._by_user.get(record.user_id)
        if known is not None and known.version >= record.version:
            return False
        self._by_user[record.user_id] = record
        return True

    def replace(self, other: "RevocationList") -> list[Revocation]:
        """Take over the records and the version of another list, and return the records."""
        self._by_user, self.version = other._by_user, other.version
        return list(self._by_user.values())

    def check(self, caller: Caller, now_ms: int) -> None:
        """Raise FORBIDDEN for a banned user, UNAUTHORIZED for a token issued before its revocation."""
        record = self._by_user.get(caller.user_id)
        if record is None:
            return
        if record.is_banned(now_ms):
            raise Refusal(ErrorCode.FORBIDDEN, "the user is banned")
        if record.has_revoked(caller.issued_at_ms):
            raise Refusal(ErrorCode.UNAUTHORIZED, "the token has been revoked")


class RevocationListSync:
    """Follows the list: changes arrive as control deliveries.

    A lost delivery leaves no trace. So the list is loaded again every 5 s, when other lines were lost, and at every
    connection to the broker: all records above `version`, the highest version that a load returned. Announced records
    do not raise it, because an earlier one may be lost.

    After a restore of the database the versions may be lower. Then the whole list is loaded anew, and the earlier
    records hold until that is done.
    """

    def __init__(self, revocations: RevocationList, backend: Backend, on_learned: Callable[[Revocation], None]) -> None:
        self._revocations = revocations
        self._backend = backend
        self._on_learned = on_learned
        self._fresh: RevocationList | None = None  # while the whole list is loaded anew
        self._due = asyncio.Event()
        self._due.set()
        self._loaded = asyncio.Event()

    async def connected(self) -> None:
        """Schedule a load, since changes may have been missed. The hook for `Bus.on_connected`."""
        self.lines_lost()

    def lines_lost(self) -> None:
        """Schedule a load: a change may be among the lost lines."""
        self._loaded.clear()
        self._due.set()

    def start_over(self) -> None:
        """Schedule a load of the whole list, because the database was restored."""
        self._fresh = RevocationList()
        self.lines_lost()

    async def loaded(self) -> None:
        """Wait, without a deadline, until the scheduled load has succeeded. That requires an answer from notifier.

        Without this wait the gateway could authenticate a banned user, or deliver to them.
        """
        while not await is_set_within(self._loaded, COMPLAIN_S):
            log.error("revocations_not_loaded", waited_s=COMPLAIN_S)

    def learn(self, record: Revocation) -> None:
        """Store a record and report it to `on_learned` if it is new."""
        if self._fresh is not None:
            self._fresh.learn(record)
        if self._revocations.learn(record):
            self._on_learned(record)

    async def run(self) -> None:
        """Load the list when due, with backoff after a failure, until cancelled."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        while True:
            await is_set_within(self._due, REFRESH_S)
            self._due.clear()
            try:
                await self._load()
                if not self._due.is_set():
                    self._loaded.set()
                backoff.reset()
            except (Unavailable, Refusal) as error:
                pause_s = backoff.next_s()
                log.warning("revocations_load_failed", reason=str(error), retry_in_s=pause_s)
                await is_set_within(self._due, pause_s)  # a new connection ends the pause
                self._due.set()

    async def _load(self) -> None:
        fresh, more = self._fresh, True
        loaded = self._revocations if fresh is None else fresh
        while more:
            command = ListRevocations(**self._backend.request_fields(GATEWAY), after=loaded.version)
            page = await self._backend.notifier_request(command, RevocationPage)
            for record in page.items:
                self.learn(record)
                loaded.version = max(loaded.version, record.version)
            more = page.more and bool(page.items)
        if fresh is not None and fresh is self._fresh:
            self._fresh = None
            for record in self._revocations.replace(fresh):
                self._on_learned(record)
