"""The admission queue: FIFO order, the limit of `Pace`, and cancellation."""

import asyncio
from contextlib import suppress

import pytest

from gateway.admission.admission_queue import AdmissionQueue
from gateway.admission.pace import AT_ONCE_FIRST, SERVICE_GRACE_S, Pace


class Entrant:
    """Waits for a slot and holds it until `done` is set."""

    def __init__(self, queue: AdmissionQueue, served: list["Entrant"]) -> None:
        self._served = served
        self.done = asyncio.Event()
        self.task = asyncio.create_task(self._enter(queue))

    async def _enter(self, queue: AdmissionQueue) -> None:
        async with queue.slot():
            self._served.append(self)
            await self.done.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_clients_are_served_in_order_up_to_limit() -> None:
    pace, served = Pace(), list[Entrant]()
    queue = AdmissionQueue(pace, lambda: 100.0)
    clients = [Entrant(queue, served) for _ in range(AT_ONCE_FIRST + 10)]
    await settle()
    assert served == clients[:AT_ONCE_FIRST]
    assert pace.waiting == 10
    for client in clients:
        client.done.set()
    await asyncio.gather(*(client.task for client in clients))
    assert served == clients
    assert pace.waiting == 0
    assert pace.has_room(0.0)


@pytest.mark.parametrize("cancelled", [0, AT_ONCE_FIRST], ids=["while served", "while waiting"])
async def test_cancelled_client_yields_its_place(cancelled: int) -> None:
    pace, served = Pace(), list[Entrant]()
    queue = AdmissionQueue(pace, lambda: 100.0)
    clients = [Entrant(queue, served) for _ in range(AT_ONCE_FIRST + 2)]
    await settle()
    clients[cancelled].task.cancel()
    clients[1].done.set()
    await settle()
    assert clients[AT_ONCE_FIRST + 1] in served
    assert pace.waiting == 0
    for client in clients:
        client.done.set()
        with suppress(asyncio.CancelledError):
            await client.task


async def test_waiter_is_served_when_others_exceed_grace() -> None:
    now_s = 100.0
    pace, served = Pace(), list[Entrant]()
    queue = AdmissionQueue(pace, lambda: now_s)
    clients = [Entrant(queue, served) for _ in range(AT_ONCE_FIRST + 1)]
    await settle()
    assert served == clients[:-1]
    now_s += SERVICE_GRACE_S
    queue.grant()
    await settle()
    assert served == clients
    for client in clients:
        client.done.set()
    await asyncio.gather(*(client.task for client in clients))
