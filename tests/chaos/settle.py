"""The end of a run: wait until the system is quiet, and read the stored items."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from shared.ids import direct_room_id
from tests.chaos.access import AccessTraffic
from tests.chaos.client import ChaosClient, Clock, key_of_message, key_of_notification
from tests.chaos.ledger import Ledger, LedgerItem
from tests.chaos.system import ReplicatedSystem
from tests.chaos.traffic import Traffic
from tests.support.events import cloud_event
from tests.support.live_client import RestClient

PRESENCE_MAX_S = 30.0
ACKS_TIMEOUT_S = 60.0
DELIVERIES_TIMEOUT_S = 60.0
BANS_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 60.0
QUEUES_TIMEOUT_S = 90.0
QUIET_S = 2.0  # time for late duplicates to arrive
ADMIN = "chaos-operator"
FINAL_PRICE = 1_000_000.0
OWN_QUEUE_MARK = ".node_"  # the queues of a process: such as reply.node_1.2 over its second connection


class Settling:
    """The settling of one run. Unmet expectations are recorded in the ledger as failures."""

    def __init__(
        self,
        patient: ReplicatedSystem,
        traffic: Traffic,
        ledger: Ledger,
        clock: Clock,
        access: AccessTraffic | None = None,
    ) -> None:
        self._patient = patient
        self._traffic = traffic
        self._clients = traffic.clients
        self._access = access
        self._ledger = ledger
        self._clock = clock
        self._admin = RestClient(patient.url, ADMIN, role="admin")

    async def presence(self, since_s: float) -> float:
        """Return the seconds from `since_s` until presence is correct for every user."""
        truth = {client.user_id: "offline" for client in self._clients}
        truth |= {client.user_id: "online" for client in self._clients if client.is_online}
        seen: dict[str, str] = {}

        async def is_true() -> bool:
            users = await self._admin.data("GET", f"/v1/presence?ids={','.join(truth)}")
            seen.update({user["userId"]: user["status"] for user in users})
            return seen == truth

        if not await _becomes(is_true, PRESENCE_MAX_S - (self._clock() - since_s)):
            wrong = {user: seen.get(user) for user, status in truth.items() if seen.get(user) != status}
            self._ledger.note_failure(f"presence is not true {PRESENCE_MAX_S:.0f} s after the last fault: {wrong}")
        return self._clock() - since_s

    async def acks(self) -> None:
        """Reconnect every device and wait until all its messages are acknowledged."""
        clients = self._all_clients()
        for client in clients:
            client.resume()

        async def are_there() -> bool:
            return all(client.is_ready and not client.unacked for client in clients)

        if not await _becomes(are_there, ACKS_TIMEOUT_S):
            missing = {client.name: len(client.unacked) for client in clients if client.unacked}
            waiting = [client.name for client in clients if not client.is_ready]
            self._ledger.note_failure(f"not acked in the end: {missing}; not connected: {waiting}")

    def _all_clients(self) -> list[ChaosClient]:
        """Return all devices that may connect."""
        return [*self._clients, *(self._access.not_banned if self._access is not None else ())]

    async def bans(self) -> None:
        """Wait until every gateway refuses every banned user."""
        if self._access is None:
            return
        access, admitted = self._access, list[str]()

        async def hold() -> bool:
            admitted[:] = await access.admitted()
            return not admitted

        if not await _becomes(hold, BANS_TIMEOUT_S):
            self._ledger.note_failure(f"banned users are served: {admitted}")

    async def prices(self) -> None:
        """Wait until everybody has the latest price of each symbol."""
        symbols = self._clients[0].symbols
        for symbol in symbols:
            id_ = self._traffic.event_id(f"final_{symbol}")
            body = cloud_event(id_, "market.tick", {"symbol": symbol, "price": FINAL_PRICE})
            await self._traffic.publisher.publish("market.tick", body)

        async def are_there() -> bool:
            return all(client.prices.get(symbol) == FINAL_PRICE for client in self._clients for symbol in symbols)

        if not await _becomes(are_there, DELIVERIES_TIMEOUT_S):
            self._ledger.note_failure("the newest price did not reach everybody")

    async def stored(self, rooms: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        """Read all histories and inboxes into the ledger."""
        for room in rooms:
            self._ledger.note_stored(f"room:{room}", await history(self._admin, room))
        for here, there in pairs:
            room = direct_room_id(here, there)
            self._ledger.note_stored(f"room:{room}", await history(RestClient(self._patient.url, here), room))
        for user in sorted({client.user_id for client in self._all_clients()}):
            self._ledger.note_stored(f"inbox:{user}", await inbox(RestClient(self._patient.url, user)))

    async def deliveries(self) -> None:
        """Wait until every client has reached the end of its channels, and a moment longer."""

        async def are_there() -> bool:
            return all(
                client.position(channel) >= len(self._ledger.stored[channel])
                for client in self._all_clients()
                for channel in client.channels
            )

        await _becomes(are_there, DELIVERIES_TIMEOUT_S)
        await asyncio.sleep(QUIET_S)

    async def members(self, rooms: Sequence[str]) -> None:
        """Check that every room's memberCount equals the number of its members."""
        for room in rooms:
            count = (await self._admin.data("GET", f"/v1/chatrooms/{room}"))["memberCount"]
            _, body = await self._admin.call("GET", f"/v1/chatrooms/{room}/members?limit=1")
            if count != body["pagination"]["total"]:
                self._ledger.note_failure(f"memberCount is {count} of {body['pagination']['total']}", channel=room)

    async def queues(self, *, until_expired: bool) -> dict[str, int]:
        """Check that all queues are empty, and with `until_expired` that no queue of a dead process is left."""
        found: dict[str, int] = {}

        async def are_well() -> bool:
            depths = await self._patient.queues()
            found.clear()
            found.update(depths)
            return not any(found.values()) and (not until_expired or self._are_of_living(found))

        if not await _becomes(are_well, QUEUES_TIMEOUT_S, pause_s=2.0):
            full = {name: count for name, count in found.items() if count}
            self._ledger.note_failure(f"queues: {sorted(found)}, of which not empty: {full}")
        return found

    def _are_of_living(self, queues: Iterable[str]) -> bool:
        """Return whether every process has each of its queues once, and none is left of another process."""
        owned = [name.rpartition(".")[0] for name in queues if OWN_QUEUE_MARK in name]  # without the connection
        owners = {name.partition(OWN_QUEUE_MARK)[2] for name in owned}
        return len(owned) == len(set(owned)) and len(owners) <= len(self._patient.names)


async def history(rest: RestClient, room: str) -> list[LedgerItem]:
    """Return all messages of a room, oldest first."""
    items: list[LedgerItem] = []
    while True:
        after = items[-1].seq if items else 0
        page = await _read(rest, f"/v1/chatrooms/{room}/messages?after={after}&limit=100")
        found = [LedgerItem(one["seq"], one["id"], key_of_message(one)) for one in page]
        if not found:
            return items
        items += sorted(found)


async def inbox(rest: RestClient) -> list[LedgerItem]:
    """Return all notifications of a user, oldest first."""
    items: list[LedgerItem] = []
    for page in range(1, 1000):
        found = await _read(rest, f"/v1/notifications?page={page}&limit=100")
        items += [LedgerItem(one["seq"], one["id"], key_of_notification(one["data"])) for one in found]
        if len(found) < 100:
            break
    return sorted(items)


async def _read(rest: RestClient, path: str) -> Any:
    """Return the data of a GET, asked again while the server says that it is too busy to answer."""
    async with asyncio.timeout(READ_TIMEOUT_S):
        while True:
            status, body = await rest.call("GET", path)
            if status != 503:
                assert status == 200, body
                return body["data"]
            await asyncio.sleep(1.0)


async def _becomes(holds: Callable[[], Awaitable[bool]], timeout_s: float, pause_s: float = 0.2) -> bool:
    """Return whether the condition holds within `timeout_s`; a failed request counts as false."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(timeout_s, 0.1)):
            while True:
                with suppress(AssertionError, aiohttp.ClientError, OSError, ValueError):
                    if await holds():
                        return True
                await asyncio.sleep(pause_s)
    return False
