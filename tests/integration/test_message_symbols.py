"""Symbols of messages: real services, of which market_feed stops."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest

from tests.support.live_client import LiveClient, RestClient
from tests.support.services import chat_service, gateway_alone, market_feed
from tests.support.waiting import until_async

KNOWN: dict[str, Any] = {"symbols": ["EUR/USD"], "clientMessageId": "c1"}
RATE = 4


class SymbolsRoom(NamedTuple):
    """A room on two gateways; `feed` is the running market_feed."""

    urls: tuple[str, str]
    room_id: str
    ann: LiveClient
    feed: AsyncExitStack

    async def say(self, client: LiveClient | None = None, **fields: Any) -> Any:
        return await (client or self.ann).ask("chat:send", chatroomId=self.room_id, message="look", **fields)


@pytest.fixture
async def market(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[SymbolsRoom]:
    async with (
        AsyncExitStack() as feed,
        chat_service(amqp_url, mongodb_uri, database_name, rate_limit_messages_per_minute=RATE),
        gateway_alone(amqp_url, request_timeout_s=1.0) as first,
        gateway_alone(amqp_url, request_timeout_s=1.0) as second,
        await LiveClient.as_user(first, "ann") as ann,
    ):
        await feed.enter_async_context(market_feed(amqp_url, mongodb_uri, database_name, market_symbols=("EUR/USD",)))
        rest = RestClient(first, "ann")
        await until_async(lambda: rest.data("GET", "/v1/market/prices?symbols=EUR/USD"), bool)
        yield SymbolsRoom((first, second), await rest.create_room(), ann, feed)


async def test_repeat_is_acknowledged_while_symbols_cannot_be_looked_up(market: SymbolsRoom) -> None:
    sent = (await market.say(**KNOWN))["data"]
    await market.feed.aclose()
    async with await LiveClient.as_user(market.urls[1], "ann") as other:
        assert (await market.say(other, **KNOWN))["data"] == sent
        assert (await market.say(other, **KNOWN | {"clientMessageId": "c2"}))["data"]["code"] == "UNAVAILABLE"
    path = f"/v1/chatrooms/{market.room_id}/messages"
    status, body = await RestClient(market.urls[1], "ann").call("POST", path, json={"message": "look", **KNOWN})
    assert (status, body["data"]["id"]) == (200, sent["messageId"])
    assert (await market.say(**KNOWN | {"clientMessageId": "c3"}))["type"] == "chat:ack"  # known there


async def test_unknown_symbols_are_refused_by_name_and_charged(market: SymbolsRoom) -> None:
    answers = [(await market.say(symbols=["NOPE"]))["data"] for _ in range(RATE + 1)]
    assert [answer["code"] for answer in answers] == ["VALIDATION"] * RATE + ["RATE_LIMITED"]
    assert "NOPE" in answers[0]["message"]
    assert await RestClient(market.urls[0], "ann").data("GET", f"/v1/chatrooms/{market.room_id}/messages") == []
