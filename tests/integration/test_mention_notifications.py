"""Notifications of mentions: from the entries of a log to the inboxes, and their end with the message."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from chat_service.follower.consumer import RoomBatch
from chat_service.mentions.mention_notifier import MentionNotifier
from chat_service.mentions.sent_mention_store import SentMentionStore
from chat_service.mentions.sent_mentions import SENT_MAX
from chat_service.rooms.log import LogEntry
from chat_service.storage.log_store import LogStore
from chat_service.storage.member_store import MemberStore
from chat_service.storage.message_store import MessageStore
from shared.bus.bus import Bus
from shared.errors import Unavailable
from shared.mongo import Database, Mongo
from shared.times import now_ms
from tests.support.database_proxy import RefuseCommand, database_proxy
from tests.support.live_client import LiveClient, RestClient
from tests.support.services import chat_service, gateway, notifier
from tests.support.waiting import until_async


class MentionWorld:
    """A private room of ann, ben and cat, and the consumer of its log."""

    def __init__(self, url: str, mongo: Mongo, bus: Bus) -> None:
        self.url = url
        self.mongo = mongo
        self._bus = bus
        self._log = LogStore(mongo.database)
        self._consumer = self.consumer_on(mongo.database)
        self.room = ""
        self._handed: list[LogEntry] = []

    def consumer_on(self, database: Database) -> MentionNotifier:
        """Return the consumer of another process."""
        return MentionNotifier(
            MemberStore(database), MessageStore(database), SentMentionStore(database), self._bus, now_ms
        )

    async def all_entries(self) -> list[RoomBatch]:
        """Return what the log of the room has."""
        return [RoomBatch(self.room, await self._log.after(self.room, 0))]

    def rest(self, user_id: str) -> RestClient:
        return RestClient(self.url, user_id)

    async def send(self, user_id: str = "ann", **fields: Any) -> Any:
        body = {"message": "look at EUR/USD", **fields}
        return await self.rest(user_id).data("POST", f"/v1/chatrooms/{self.room}/messages", json=body)

    async def hand_over(self, *, again: bool = False) -> None:
        """Hand the new entries to the consumer, or all of them again."""
        after = 0 if again or not self._handed else self._handed[-1].rev
        entries = await self._log.after(self.room, after)
        self._handed = entries or self._handed
        await self._consumer.take([RoomBatch(self.room, entries)])

    async def try_again(self) -> bool:
        """Hand over all entries again, and return whether the consumer has taken them."""
        try:
            await self.hand_over(again=True)
        except Unavailable:
            return False
        return True

    async def inbox(self, user_id: str) -> list[Any]:
        page: list[Any] = await self.rest(user_id).data("GET", "/v1/notifications")
        return page

    async def messages_of(self, user_id: str) -> list[str]:
        return [item["message"] for item in await self.inbox(user_id)]


@asynccontextmanager
async def mention_world(
    amqp_url: str, mongodb_uri: str, database_name: str, notifier_uri: str
) -> AsyncIterator[MentionWorld]:
    """Run the services; notifier reaches the database by an address of its own."""
    with closing(Mongo(mongodb_uri, database_name)) as mongo:
        async with (
            chat_service(amqp_url, mongodb_uri, database_name),
            notifier(amqp_url, notifier_uri, database_name),
            gateway(amqp_url) as url,
            Bus(amqp_url, "node_mentions") as bus,
        ):
            await bus.wait_connected()
            world = MentionWorld(url, mongo, bus)
            world.room = await world.rest("ann").create_room(type="private", memberIds=["ben", "cat"])
            yield world


@pytest.fixture
async def world(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[MentionWorld]:
    async with mention_world(amqp_url, mongodb_uri, database_name, mongodb_uri) as world:
        yield world


async def test_mentioned_members_are_notified_once(world: MentionWorld) -> None:
    async with await LiveClient.as_user(world.url, "ben") as ben:
        await ben.ask("subscribe", channel="notifications")
        sent = await world.send(mentions=["ben", "ann"])
        for again in (False, True):
            await world.hand_over(again=again)
        data = await ben.data("notification:new")
        shown = {name: data[name] for name in ("type", "chatroomId", "messageId", "userId", "message", "priority")}
        assert shown == {
            "type": "mention",
            "chatroomId": world.room,
            "messageId": sent["id"],
            "userId": "ann",
            "message": "look at EUR/USD",
            "priority": "medium",
        }
        path = f"/v1/chatrooms/{world.room}/messages/{sent['id']}"
        await world.rest("ann").data("PATCH", path, json={"message": "look", "mentions": ["ben", "cat"]})
        await world.hand_over()
        await until_async(lambda: world.messages_of("cat"), lambda found: found == ["look"])
        await world.send(mentionRoom=True, mentions=["cat"])
        await world.hand_over()
        await until_async(lambda: world.inbox("cat"), lambda found: len(found) == 2)
        await until_async(lambda: world.inbox("ben"), lambda found: len(found) == 2)
        assert await world.inbox("ann") == []


async def test_stranger_who_is_named_is_not_notified_nor_anyone_above_the_rate(world: MentionWorld) -> None:
    world.room = await world.rest("ann").create_room()
    await world.rest("ben").data("POST", f"/v1/chatrooms/{world.room}/join")
    await world.send(mentions=["stranger"])
    for number in range(SENT_MAX + 2):
        await world.send(message=f"{number}", mentions=["ben"])
    await world.hand_over()
    found = await until_async(
        lambda: world.rest("ben").call("GET", "/v1/notifications?limit=1"),
        lambda answer: answer[1]["pagination"]["total"] >= SENT_MAX,
    )
    assert found[1]["pagination"]["total"] == SENT_MAX
    assert await world.inbox("stranger") == []


async def test_mentions_of_a_sender_cost_one_read_and_one_write_of_sent_mentions(
    world: MentionWorld, mongodb_uri: str
) -> None:
    for number in range(10):
        await world.send(message=f"{number}", mentions=["ben", "cat"])
    await until_async(lambda: world.inbox("cat"), lambda found: len(found) == 10)  # the service has notified them too
    await world.mongo.database["mention_grants"].delete_many({})
    async with database_proxy(mongodb_uri) as proxy:
        mongo = Mongo(proxy.uri, world.mongo.database.name)
        try:
            await world.consumer_on(mongo.database).take(await world.all_entries())
        finally:
            await asyncio.to_thread(mongo.close)  # it joins a thread that waits for the proxy
        written = {name: proxy.seen[name, "mention_grants"] for name in ("find", "insert", "update")}
    assert written == {"find": 1, "insert": 1, "update": 0}
    (sent,) = await world.mongo.database["mention_grants"].find().to_list(None)
    assert (sent["_id"], len(sent["recent"])) == ("ann", 20)


async def test_deleted_text_leaves_the_notifications(world: MentionWorld) -> None:
    texts = ("a secret tip", "another secret tip", "a third secret tip")
    sent = [await world.send(message=text, mentions=["ben"]) for text in texts]
    paths = [f"/v1/chatrooms/{world.room}/messages/{one['id']}" for one in sent]
    await world.hand_over()
    await until_async(lambda: world.inbox("ben"), lambda found: len(found) == 3)
    await world.rest("ann").data("PATCH", paths[0], json={"message": "harmless", "mentions": []})
    for path in paths:
        await world.rest("ann").data("DELETE", path)
    await world.hand_over()
    assert await world.messages_of("ben") == ["", "", ""]
    for name in await world.mongo.database.list_collection_names():
        assert "secret tip" not in str(await world.mongo.database[name].find().to_list(None)), name
    await world.hand_over(again=True)
    assert await world.messages_of("ben") == ["", "", ""]


async def test_deleted_text_leaves_the_notifications_however_often_notifier_refuses(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with (
        database_proxy(mongodb_uri) as proxy,
        mention_world(amqp_url, mongodb_uri, database_name, proxy.uri) as world,
    ):
        sent = await world.send(message="a secret tip", mentions=["ben"])
        await until_async(lambda: world.messages_of("ben"), lambda found: found == ["a secret tip"])
        await world.hand_over()
        proxy.inject(RefuseCommand(), "find", "update", "aggregate", collection="events")
        await world.rest("ann").data("DELETE", f"/v1/chatrooms/{world.room}/messages/{sent['id']}")
        for _ in range(2):
            with pytest.raises(Unavailable, match="notifier refuses to erase"):
                await world.hand_over(again=True)
        proxy.clear()
        await until_async(world.try_again, bool)
        assert await world.messages_of("ben") == [""]
