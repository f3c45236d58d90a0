"""Turns: in order, as many at a time as the pace allows, and nobody's place is lost when somebody goes."""

import asyncio
from contextlib import suppress

import pytest

from gateway.admission.admission_queue import AdmissionQueue
from gateway.admission.pace import AT_ONCE_FIRST, SERVICE_GRACE_S, Pace


class Client:
    """Wants a turn; once it has it, it keeps it until `done`."""

    def __init__(self, turns: AdmissionQueue, served: list["Client"]) -> None:
        self._served = served
        self.done = asyncio.Event()
        self.task = asyncio.create_task(self._come(turns))

    async def _come(self, turns: AdmissionQueue) -> None:
        async with turns.turn():
            self._served.append(self)
            await self.done.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_at_a_time_in_the_order_of_their_coming() -> None:
    pace, served = Pace(), list[Client]()
    turns = AdmissionQueue(pace, lambda: 100.0)
    clients = [Client(turns, served) for _ in range(AT_ONCE_FIRST + 10)]
    await settle()
    assert served == clients[:AT_ONCE_FIRST]
    assert pace.waiting == 10
    for client in clients:
        client.done.set()
    await asyncio.gather(*(client.task for client in clients))
    assert served == clients
    assert pace.waiting == 0
    assert pace.has_room(0.0)


@pytest.mark.parametrize("goes", [0, AT_ONCE_FIRST], ids=["while served", "while waiting"])
async def test_who_goes_gives_its_place_to_the_next(goes: int) -> None:
    pace, served = Pace(), list[Client]()
    turns = AdmissionQueue(pace, lambda: 100.0)
    clients = [Client(turns, served) for _ in range(AT_ONCE_FIRST + 2)]
    await settle()
    clients[goes].task.cancel()
    clients[1].done.set()
    await settle()
    assert clients[AT_ONCE_FIRST + 1] in served
    assert pace.waiting == 0
    for client in clients:
        client.done.set()
        with suppress(asyncio.CancelledError):
            await client.task


async def test_who_waits_is_called_when_others_take_too_long() -> None:
    now_s = 100.0
    pace, served = Pace(), list[Client]()
    turns = AdmissionQueue(pace, lambda: now_s)
    clients = [Client(turns, served) for _ in range(AT_ONCE_FIRST + 1)]
    await settle()
    assert served == clients[:-1]
    now_s += SERVICE_GRACE_S
    turns.call()
    await settle()
    assert served == clients
    for client in clients:
        client.done.set()
    await asyncio.gather(*(client.task for client in clients))
