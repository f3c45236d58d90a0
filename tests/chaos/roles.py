"""Rooms whose creators change during the faults: handed over, left, removed. A room with members has one creator."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from tests.chaos.client import Clock
from tests.chaos.ledger import Ledger
from tests.chaos.traffic import Activity, TrafficRates, call_rest
from tests.support.live_client import RestClient

ROOMS = 2
KEEPERS = 6
ROLES = ("member", "moderator", "moderator", "creator", "creator")
ANSWERS = (0, 200, 400, 404, 503)  # 400: the creator gets no other role; 404: the member is gone already
LATE_MAX_S = 30.0  # the records of an entry are late while its owner is frozen, or the database away
FINAL_TRIES = 40
RETRY_S = 0.5


class CreatorCount(NamedTuple):
    """The numbers of creators and members in a list of members."""

    at_s: float
    creators: int
    members: int

    @property
    def is_right(self) -> bool:
        """Return whether there is exactly one creator, unless nobody is in the room."""
        return self.creators == (1 if self.members else 0)


def longest_wrong_s(counts: Sequence[CreatorCount]) -> float:
    """Return the longest time between two wrong counts without a right one between them. Pure."""
    longest_s, since_s = 0.0, None
    for count in counts:
        if count.is_right:
            since_s = None
        else:
            since_s = count.at_s if since_s is None else since_s
            longest_s = max(longest_s, count.at_s - since_s)
    return longest_s


class RoleTraffic:
    """Keepers of rooms, who join, leave, and get roles from an admin."""

    def __init__(self, url: str, admin: RestClient, ledger: Ledger, clock: Clock, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.rooms: list[str] = []
        self._url = url
        self._admin = admin
        self._ledger = ledger
        self._clock = clock
        self._random = Random(seed)
        self._seen: dict[str, list[CreatorCount]] = {}

    async def prepare(self) -> None:
        """Create the rooms."""
        first, *others = self._keepers
        for number in range(ROOMS):
            fields = {"memberIds": others}
            self.rooms.append(await RestClient(self._url, first).create_room(f"Roles {number}", "public", **fields))

    def activities(self, rates: TrafficRates) -> list[Activity]:
        """Return the acts and their frequencies."""
        return [(self._change, rates.roles), (self._look, rates.roles)]

    async def settle(self) -> None:
        """Record a failure for each room that shows no single creator in the end, or did not for a long time."""
        for room in self.rooms:
            for _ in range(FINAL_TRIES):
                if await self._is_right(room):
                    break
                await asyncio.sleep(RETRY_S)
            counts = self._seen.get(room, [])
            if not counts or not counts[-1].is_right:
                self._ledger.note_failure(f"creators in the end: {counts[-1:]}", channel=f"room:{room}")
            if (wrong_s := longest_wrong_s(counts)) > LATE_MAX_S:
                self._ledger.note_failure(f"no single creator for {wrong_s:.0f} s", channel=f"room:{room}")

    @property
    def _keepers(self) -> list[str]:
        return [f"keeper{number}" for number in range(KEEPERS)]

    async def _is_right(self, room: str) -> bool:
        """Make the owner load the room, even if records are unwritten, and look."""
        await call_rest(self._admin, "PUT", f"/v1/chatrooms/{room}/members/{self._keepers[0]}")
        await self._look_at(room)
        return bool(self._seen.get(room)) and self._seen[room][-1].is_right

    async def _change(self) -> None:
        room, user = self._random.choice(self.rooms), self._random.choice(self._keepers)
        member = f"/v1/chatrooms/{room}/members/{user}"
        own = RestClient(self._url, user)
        match self._random.randrange(6):
            case 0:
                status, _ = await call_rest(own, "POST", f"/v1/chatrooms/{room}/leave")
            case 1 | 2:
                status, _ = await call_rest(own, "POST", f"/v1/chatrooms/{room}/join")
            case 3:
                status, _ = await call_rest(self._admin, "DELETE", member)
            case _:
                role = {"role": self._random.choice(ROLES)}
                status, _ = await call_rest(self._admin, "PUT", member, json=role)
        self.counts["changes of membership and role"] += 1
        if status not in ANSWERS:
            self._ledger.note_failure(f"a change of a role was answered {status}", channel=f"room:{room}")

    async def _look(self) -> None:
        await self._look_at(self._random.choice(self.rooms))

    async def _look_at(self, room: str) -> None:
        status, body = await call_rest(self._admin, "GET", f"/v1/chatrooms/{room}/members?limit=100")
        if status == 200:
            creators = sum(member["role"] == "creator" for member in body["data"])
            self._seen.setdefault(room, []).append(CreatorCount(self._clock(), creators, len(body["data"])))
