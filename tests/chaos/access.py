"""Users who lose access during the faults: removed from private rooms over REST, or banned by event.

The victims chat before and after, and connect again and again. `ledger` judges the items that they still send and
receive.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from random import Random

from tests.chaos.client import Clock
from tests.chaos.ledger import Ledger
from tests.chaos.traffic import Activity, EventPublisher, TrafficRates, call_rest
from tests.chaos.victim import ExcludedClient
from tests.support.events import cloud_event
from tests.support.live_client import RestClient

REMOVED = (200, 404)  # 404: an earlier request, whose answer was lost, has removed the member
UNANSWERED = (0, 503)
HIDDEN = (403, 404)
TRIES = 6
WAITING_MAX = 8
ONCE_SHARE = 0.5
RETRY_S = 0.5
# From the confirmed event to the last gateway: notifier's active replica may be frozen (and is replaced after 5 s), the
# database and the broker may be away for 6 s each, and a gateway may be frozen for 12 s.
BAN_GRACE_S = 30.0


class AccessTraffic:
    """The victims of removals and of bans. Each removal and each ban happens once, in random order."""

    def __init__(
        self,
        url: str,
        admin: RestClient,
        removed: Sequence[ExcludedClient],
        banned: Sequence[ExcludedClient],
        publisher: EventPublisher,
        ledger: Ledger,
        clock: Clock,
        seed: int,
    ) -> None:
        self.victims = [*removed, *banned]
        self.counts: Counter[str] = Counter()
        self._url = url
        self._admin = admin
        self._publisher = publisher
        self._ledger = ledger
        self._clock = clock
        self._random = Random(seed)
        self._removals = [(victim, room) for victim in removed for room in victim.rooms]
        self._bans = list(banned)
        self._random.shuffle(self._removals)

    def activities(self, rates: TrafficRates) -> list[Activity]:
        """Return the acts and their frequencies."""
        return [(self._chat, rates.victim_messages), (self._remove, rates.removals), (self._ban, rates.bans)]

    @property
    def not_banned(self) -> list[ExcludedClient]:
        """Return the victims whose connections remain."""
        return [victim for victim in self.victims if not victim.is_banned]

    async def admitted(self) -> list[str]:
        """Return the banned users whom a gateway still serves. One try reaches one gateway."""
        users = [victim.user_id for victim in self.victims if victim.is_banned for _ in range(TRIES)]
        tries = [call_rest(RestClient(self._url, user), "GET", "/v1/chatrooms") for user in users]
        answers = await asyncio.gather(*tries)
        return sorted(
            {user for user, (status, _) in zip(users, answers, strict=True) if status != HTTPStatus.FORBIDDEN}
        )

    async def _chat(self) -> None:
        able = [victim for victim in self.victims if victim.waiting < WAITING_MAX]
        if not able:
            return
        victim = self._random.choice(able)
        room = self._random.choice(victim.rooms)
        self.counts["messages of victims"] += 1
        key = f"v{self.counts['messages of victims']}"
        await (victim.send_once(key, room) if self._random.random() < ONCE_SHARE else victim.send(key, room, key))

    async def _remove(self) -> None:
        if not self._removals:
            return
        victim, room = self._removals.pop()
        victim.expect_removal(room)
        path = f"/v1/chatrooms/{room}/members/{victim.user_id}"
        while (status := (await call_rest(self._admin, "DELETE", path))[0]) not in REMOVED:
            if status not in UNANSWERED:
                self._ledger.note_failure(f"a removal was answered {status}", channel=f"room:{room}")
                return
            await asyncio.sleep(RETRY_S)
        self._ledger.note_barred(victim.name, f"room:{room}", self._clock())
        victim.note_removal(room)
        self.counts["removals"] += 1
        await self._peek(victim, room)

    async def _peek(self, victim: ExcludedClient, room: str) -> None:
        """Read the history as the removed user."""
        status, _ = await call_rest(RestClient(self._url, victim.user_id), "GET", f"/v1/chatrooms/{room}/messages")
        if status not in (*HIDDEN, *UNANSWERED):
            self._ledger.note_failure(f"history answered {status}", channel=f"room:{room}", listener=victim.name)

    async def _ban(self) -> None:
        if not self._bans:
            return
        victim = self._bans.pop()
        victim.expect_ban()
        event = cloud_event(f"ban_{victim.user_id}", "user.banned", {"userId": victim.user_id})
        await self._publisher.publish("user.banned", event)
        for room in victim.rooms:
            self._ledger.note_barred(victim.name, f"room:{room}", self._clock(), BAN_GRACE_S)
        self._ledger.note_barred(victim.name, f"inbox:{victim.user_id}", self._clock(), BAN_GRACE_S)
        self.counts["bans"] += 1
