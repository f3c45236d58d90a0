"""The partitions that a replica works on, over lost connections, newer terms and hand-overs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest

from chat_service.partitions.commit_path import Services
from chat_service.partitions.owned_partitions import OwnedPartitions
from chat_service.partitions.owner_store import OwnerStore
from chat_service.partitions.ownership import OwnerRecord, ReplicaView
from chat_service.storage.repair import Repair
from shared.bus.bus import Bus
from shared.bus.delivery import Delivery
from shared.bus.private_queue import PrivateQueue
from tests.support.waiting import until

NODE = "node_1"


class OwnersBus:
    """The bus as an owner sees it. Each connection gives private queues a new name."""

    def __init__(self) -> None:
        self.name = NODE
        self.is_connected = False
        self.on_connected: list[Callable[[], Awaitable[None]]] = []
        self.on_disconnected: list[Callable[[], object]] = []
        self._queues: list[PrivateQueue] = []
        self._connections = 0

    def private_queue(self, prefix: str, on_body: Callable[[bytes], None], arguments: Any = None) -> PrivateQueue:
        self._queues.append(PrivateQueue(prefix, self.name, arguments or {}, on_body))
        return self._queues[-1]

    def send(self, exchange: str, key: str, body: bytes, cc: Sequence[str] = ()) -> None:
        pass

    def send_deliveries(self, deliveries: Sequence[Delivery], queues: Sequence[str] = ()) -> None:
        pass

    async def connect(self) -> None:
        self._connections += 1
        for queue in self._queues:
            queue.rename(self._connections)
        self.is_connected = True
        for hook in self.on_connected:
            await hook()

    def disconnect(self) -> None:
        self.is_connected = False
        for hook in self.on_disconnected:
            hook()


class Records:
    """`partition_owners`."""

    def __init__(self) -> None:
        self.found: dict[int, OwnerRecord] = {}

    async def owners(self) -> dict[int, OwnerRecord]:
        return self.found

    async def replace(self, number: int, seen: OwnerRecord, node: str, queue: str) -> OwnerRecord | None:
        self.found[number] = OwnerRecord(node, queue, seen.term + 1)
        return self.found[number]


class RunningOwner:
    """An owner whose records the test writes, without its regular work."""

    def __init__(self) -> None:
        self.broker, self.records = OwnersBus(), Records()
        services: Any = Mock(monotonic_ms=lambda: time.monotonic_ns() // 1_000_000, generation="gen_1")
        services.records.write_partition = AsyncMock()
        replicas = ReplicaView(NODE, "", 2, 0)
        self.owner = OwnedPartitions(
            cast(Bus, self.broker),
            cast(OwnerStore, self.records),
            replicas,
            cast(Repair, None),
            cast(Services, services),
            lambda: False,
        )

    async def refresh(self) -> dict[int, int]:
        """Read the records, as the owner does periodically; return its partitions and their terms."""
        await self.owner._refresh()
        self.owner._adopt()
        return self.owner._running.terms()


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningOwner]:
    running = RunningOwner()
    monkeypatch.setattr(running.owner, "_beat", lambda: None)
    async with running.owner._tasks:
        yield running
        running.broker.disconnect()


async def test_partition_is_begun_only_under_present_queue(running: RunningOwner) -> None:
    await running.broker.connect()
    running.records.found = {0: OwnerRecord(NODE, "chat.node_1.1", 1), 1: OwnerRecord(NODE, "chat.node_1.0", 1)}
    assert await running.refresh() == {0: 1}


async def test_nothing_is_begun_without_connection(running: RunningOwner) -> None:
    await running.broker.connect()
    running.records.found = {0: OwnerRecord(NODE, "chat.node_1.1", 1)}
    await running.refresh()
    running.broker.disconnect()
    assert await running.refresh() == {}  # its record still names the queue that is gone
    await running.broker.connect()
    running.records.found = {0: OwnerRecord(NODE, "chat.node_1.2", 2)}
    assert await running.refresh() == {0: 2}


async def test_newer_term_replaces_older_one(running: RunningOwner) -> None:
    await running.broker.connect()
    running.records.found = {0: OwnerRecord(NODE, "chat.node_1.1", 1)}
    await running.refresh()
    old = running.owner._running.get(0)
    assert old is not None
    running.records.found = {0: OwnerRecord(NODE, "chat.node_1.1", 3)}
    assert await running.refresh() == {0: 3}
    await until(lambda: old._is_over)


async def test_partition_that_is_handed_over_is_not_begun_again(running: RunningOwner) -> None:
    """The record names this process until the partition has finished its commit and the next owner is recorded."""
    await running.broker.connect()
    running.records.found = {0: OwnerRecord(NODE, "chat.node_1.1", 1)}
    await running.refresh()
    partition = running.owner._running.get(0)
    assert partition is not None
    partition._idle.clear()
    handing_over = asyncio.create_task(running.owner._hand_over(0, "node_2", "chat.node_2.1"))
    await asyncio.sleep(0)
    assert await running.refresh() == {}
    partition._idle.set()
    await handing_over
