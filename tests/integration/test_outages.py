"""Something that a gateway needs is away: callers are told in time, nothing piles up, nothing is done twice or late."""

from contextlib import AsyncExitStack

import aio_pika

from shared.topology import DEAD, partition_of, partition_queue
from tests.support.live_client import Caller, LiveClient
from tests.support.services import chat_service, gateway
from tests.support.waiting import until_async


async def depth(amqp_url: str, name: str) -> int:
    """How many messages wait in a queue."""
    async with await aio_pika.connect(amqp_url) as connection:
        queue = await (await connection.channel()).get_queue(name)
        return queue.declaration_result.message_count or 0


async def test_a_send_that_nobody_took_in_time_is_refused_and_never_done_later(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with AsyncExitStack() as stack:
        async with chat_service(amqp_url, mongodb_uri, database_name):
            url = await stack.enter_async_context(gateway(amqp_url, request_timeout_s=1.0))
            room = await Caller(url, "ann").create_room()
        async with await LiveClient.as_user(url, "ann") as client:
            refused = await client.ask("chat:send", chatroomId=room, message="late", clientMessageId="k")
            assert (refused["data"]["code"], refused["data"]["retryable"]) == ("UNAVAILABLE", True)
            async with chat_service(amqp_url, mongodb_uri, database_name):
                queue = partition_queue(partition_of(room))
                await until_async(lambda: depth(amqp_url, queue), lambda waiting: not waiting)
                acked = await client.ask("chat:send", chatroomId=room, message="in time", clientMessageId="k")
                assert (acked["type"], acked["data"]["seq"]) == ("chat:ack", 1)
                stored = await Caller(url, "ann").data("GET", f"/v1/chatrooms/{room}/messages")
    assert [message["message"] for message in stored] == ["in time"]
    assert await depth(amqp_url, DEAD) == 0
