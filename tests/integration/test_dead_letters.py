"""The queue of unprocessable bodies, which nobody consumes, when an operator deletes it."""

import asyncio

from gateway.cli.bus import list_dead_letters, replay_dead_letters
from shared.bus.broker_objects import DeadLetter
from shared.bus.bus import MEASURE_INTERVAL_S, Bus
from shared.bus.topology import DEAD
from shared.errors import Unavailable
from shared.ids import Prefix, new_id
from tests.support.infrastructure import Infrastructure
from tests.support.waiting import until_async


async def test_nothing_is_lost_while_dead_letter_queue_is_deleted(
    amqp_url: str, infrastructure: Infrastructure
) -> None:
    body = new_id(Prefix.EVENT).encode()
    found: list[bytes] = []

    async def settle(letter: DeadLetter) -> bool:
        found.append(letter.body)
        return letter.body == body

    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        await bus.wait_connected()
        await asyncio.to_thread(infrastructure.broker.control, "delete_queue", DEAD)

        async def is_stored() -> bool:
            try:
                await bus.dead_letter(body, queue="some.queue", reason="malformed")
            except Unavailable:
                return False
            return True

        assert not await is_stored()
        await until_async(is_stored, bool, 2 * MEASURE_INTERVAL_S)
        await bus.queues.dead_letters(settle)
    assert found == [body]


async def test_replayed_letter_stays_while_its_queue_does_not_exist(amqp_url: str) -> None:
    queue = f"missing.{new_id(Prefix.EVENT)}"
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        await bus.wait_connected()
        await bus.dead_letter(b"{}", queue=queue, reason="malformed")
    assert await replay_dead_letters(amqp_url, lambda _, letter: letter.queue == queue) == 0
    found = await list_dead_letters(amqp_url)
    assert [letter.body for letter in found if letter.queue == queue] == [b"{}"]
