"""The bytes of a replay that a socket holds until its client has read them."""

import asyncio

from gateway.fanout.batch import Batch
from gateway.fanout.lane import replay
from gateway.live.socket import HIGH_WATER_BYTES, Socket
from shared.byte_budget import ByteBudget, Hold
from tests.unit.gateway.live.test_connections import FAREWELL, Transport, new_socket

FRAMES = [bytes([number]) * 100_000 for number in range(40)]


async def held(budget: ByteBudget) -> Hold:
    return await budget.hold("ann", sum(map(len, FRAMES)))


async def slow_reader_of_a_replay() -> tuple[Socket, Transport, ByteBudget]:
    socket, transport = new_socket()
    budget = ByteBudget("test", 2**30, 2**30)
    hold = await held(budget)
    transport.unsent_bytes = HIGH_WATER_BYTES + 1
    replay(socket, FRAMES)
    socket.hold_until_sent(hold)
    return socket, transport, budget


async def test_replay_fills_the_transport_no_further_than_other_writes() -> None:
    socket, transport = new_socket()
    written = transport.write

    def write(data: bytes) -> None:
        written(data)
        transport.unsent_bytes += len(data)

    transport.write = write  # type: ignore[method-assign]
    replay(socket, FRAMES)
    assert HIGH_WATER_BYTES < transport.unsent_bytes < 2 * HIGH_WATER_BYTES
    assert socket.send_queue is not None
    assert socket.send_queue.size_bytes == 0
    for _ in FRAMES:
        transport.unsent_bytes = 0
        socket.flush_queue()
    assert b"".join(transport.written) == b"".join(FRAMES)


async def test_replay_to_a_fast_reader_is_released_at_once() -> None:
    socket, _ = new_socket()
    budget = ByteBudget("test", 2**30, 2**30)
    hold = await held(budget)
    replay(socket, FRAMES)
    socket.hold_until_sent(hold)
    assert budget.held_bytes == 0


async def test_hold_ends_with_the_replay_though_live_traffic_goes_on() -> None:
    socket, transport, budget = await slow_reader_of_a_replay()
    transport.unsent_bytes = 0
    flushes = 0
    while budget.held_bytes:
        for _ in range(10):
            socket.write(Batch.lossless((b"live" * 1000,)))
        socket.flush_queue()
        flushes += 1
        assert flushes < 2 * len(FRAMES)
    assert socket.send_queue


async def test_closing_socket_releases_its_holds() -> None:
    socket, _, budget = await slow_reader_of_a_replay()
    assert budget.held_bytes
    socket.close(FAREWELL)
    await asyncio.sleep(0)
    assert budget.held_bytes == 0
