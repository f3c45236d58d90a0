"""Edits, deletions, reactions, pins and replies over sockets and REST: real services, broker and database."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from shared.mongo import Mongo
from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.services import chat_service, gateway_alone

THUMB, HEART = "👍", "❤️"  # the heart fully qualified


class SharedRoom:
    """A public room with a creator, ann, and ben listening on another gateway."""

    def __init__(self, id_: str, urls: tuple[str, str], ann: LiveClient, ben: LiveClient) -> None:
        self.id = id_
        self.urls = urls
        self.ann, self.ben = ann, ben
        self.path = f"/v1/chatrooms/{id_}"

    def rest(self, user_id: str, **claims: Any) -> RestClient:
        return RestClient(self.urls[0], user_id, **claims)

    async def say(self, text: str, **fields: Any) -> Any:
        """Send a message as ann and return the data of its ack."""
        ack = await self.ann.ask("chat:send", chatroomId=self.id, message=text, **fields)
        assert ack["type"] == "chat:ack", ack
        await self.ben.data("chat:message")
        return ack["data"]

    async def change(self, type_: str, message_id: str, sender: LiveClient | None = None, **fields: Any) -> Frame:
        """Change a message over a socket and return the answer."""
        return await (sender or self.ann).ask(type_, chatroomId=self.id, messageId=message_id, **fields)

    async def view(self, message_id: str, user_id: str = "ann") -> Any:
        return await self.rest(user_id).data("GET", f"{self.path}/messages/{message_id}")


@pytest.fixture
async def room(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[SharedRoom]:
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        gateway_alone(amqp_url) as first,
        gateway_alone(amqp_url) as second,
        await LiveClient.as_user(first, "ann") as ann,
        await LiveClient.as_user(second, "ben") as ben,
    ):
        id_ = await RestClient(first, "ann").create_room()
        for client in (ann, ben):
            assert (await client.ask("subscribe", channel="chatroom", chatroomId=id_))["type"] == "subscribed"
        yield SharedRoom(id_, (first, second), ann, ben)


def error_of(frame: Frame) -> tuple[str, str]:
    assert frame["type"] == "error", frame
    return frame["data"]["code"], frame["data"]["message"]


async def test_edit_is_shown_everywhere(room: SharedRoom) -> None:
    sent = await room.say("EUR/USD up")
    ack = await room.change("chat:edit", sent["messageId"], message="EUR/USD down")
    assert ack["data"] == {"chatroomId": room.id, "messageId": sent["messageId"], "rev": sent["rev"] + 1}
    seen = await room.ben.data("chat:updated")
    assert seen.pop("editedAt")
    assert seen == {**ack["data"], "userId": "ann", "message": "EUR/USD down"}
    view = await room.view(sent["messageId"])
    assert (view["message"], view["rev"], "editedAt" in view) == ("EUR/USD down", sent["rev"], True)
    again = await room.change("chat:edit", sent["messageId"], message="EUR/USD down")
    assert again["data"]["rev"] == ack["data"]["rev"]
    assert error_of(await room.change("chat:edit", sent["messageId"], room.ben, message="mine"))[0] == "FORBIDDEN"
    assert error_of(await room.change("chat:edit", "msg_unknown", message="x"))[0] == "NOT_FOUND"


async def test_deleted_text_is_gone_and_leaves_a_tombstone(
    room: SharedRoom, mongodb_uri: str, database_name: str
) -> None:
    sent = await room.say("a secret tip", mentions=["ben"])
    reply = await room.say("really?", replyTo=sent["messageId"])
    for mentions in (["ben", "zoe"], ["ben"]):
        await room.change("chat:edit", sent["messageId"], message=f"a secret tip for {mentions}", mentions=mentions)
    await room.change("chat:react", sent["messageId"], room.ben, emoji=THUMB)
    await room.rest("ann").data("PUT", f"{room.path}/pins/{sent['messageId']}")
    ack = await room.change("chat:delete", sent["messageId"])
    assert (await room.ben.data("chat:deleted"))["rev"] == ack["data"]["rev"]
    view = await room.view(sent["messageId"])
    assert (view["message"], view["deletedBy"], view["seq"]) == ("", "ann", sent["seq"])
    assert not {"mentions", "reactions", "editedAt", "replyTo"} & view.keys()
    assert (await room.view(reply["messageId"]))["replyTo"] == {
        "messageId": sent["messageId"],
        "userId": "ann",
        "message": "",
    }
    assert await room.rest("ann").data("GET", f"{room.path}/pins") == []
    late: list[tuple[str, dict[str, Any]]] = [("chat:edit", {"message": "x"}), ("chat:react", {"emoji": HEART})]
    for type_, fields in late:
        assert error_of(await room.change(type_, sent["messageId"], **fields))[0] == "CONFLICT"
    assert (await room.change("chat:delete", sent["messageId"]))["data"]["rev"] == ack["data"]["rev"]
    mongo = Mongo(mongodb_uri, database_name)
    for name in await mongo.database.list_collection_names():
        assert "secret tip" not in str(await mongo.database[name].find().to_list(None)), name
    for document in await mongo.database["room_log"].find({"change.messageId": sent["messageId"]}).to_list(None):
        assert not [word for word in ("ben", "zoe", THUMB) if word in str(document["change"])]
    mongo.close()


async def test_only_author_creator_and_admin_delete(room: SharedRoom) -> None:
    await room.ben.ask("chat:send", chatroomId=room.id, message="join")
    mine, theirs = await room.say("by ann"), (await room.ben.ask("chat:send", chatroomId=room.id, message="by ben"))
    assert error_of(await room.change("chat:delete", mine["messageId"], room.ben))[0] == "FORBIDDEN"
    assert (await room.change("chat:delete", theirs["data"]["messageId"]))["type"] == "chat:ack"
    path = f"{room.path}/messages/{mine['messageId']}"
    assert await room.rest("root", role="admin").data("DELETE", path) == {"id": mine["messageId"]}
    assert (await room.view(mine["messageId"]))["deletedBy"] == "root"


async def test_reactions_count_users_and_kinds(room: SharedRoom) -> None:
    sent = await room.say("moon")
    path = f"{room.path}/messages/{sent['messageId']}/reactions"
    first = await room.change("chat:react", sent["messageId"], room.ben, emoji="❤")
    assert (await room.ann.data("member:joined"))["userId"] == "ben"
    seen = await room.ann.data("chat:reaction")
    assert seen["reactions"] == [{"emoji": HEART, "count": 1}]
    assert seen["changes"] == [{"userId": "ben", "emoji": HEART, "added": True}]
    assert (await room.change("chat:react", sent["messageId"], room.ben, emoji=HEART))["data"] == first["data"]
    view = await room.rest("ann").data("PUT", f"{path}/{quote(HEART)}")
    assert view["reactions"] == [{"emoji": HEART, "count": 2, "mine": True}]
    assert (await room.view(sent["messageId"], "ben"))["reactions"] == [{"emoji": HEART, "count": 2, "mine": True}]
    assert (await room.view(sent["messageId"], "cat"))["reactions"] == [{"emoji": HEART, "count": 2}]
    listed = await room.rest("cat").data("GET", f"{path}?emoji={quote('❤')}")
    assert [item["userId"] for item in listed] == ["ann", "ben"]
    assert await room.rest("ann").data("DELETE", f"{path}/{quote(HEART)}") == {"id": HEART}
    await room.change("chat:react", sent["messageId"], room.ben, emoji=HEART, remove=True)
    assert "reactions" not in await room.view(sent["messageId"])
    for number in range(20):
        assert (await room.change("chat:react", sent["messageId"], emoji=f":kind_{number}:"))["type"] == "chat:ack"
    assert error_of(await room.change("chat:react", sent["messageId"], emoji=THUMB))[0] == "CONFLICT"
    for bad in ("x", "👍👍", "", ":no space:", "a" * 100):
        code, message = error_of(await room.change("chat:react", sent["messageId"], emoji=bad))
        assert (code, message.partition(":")[0]) == ("VALIDATION", "emoji")


async def test_crowd_of_reactions_makes_few_entries(room: SharedRoom) -> None:
    sent = await room.say("all in")
    users = [await LiveClient.as_user(room.urls[index % 2], f"user_{index}") for index in range(60)]
    answers = await asyncio.gather(
        *(user.ask("chat:react", chatroomId=room.id, messageId=sent["messageId"], emoji=THUMB) for user in users)
    )
    assert {answer["type"] for answer in answers} == {"chat:ack"}
    assert len({answer["data"]["rev"] for answer in answers}) <= 30
    assert (await room.view(sent["messageId"]))["reactions"] == [{"emoji": THUMB, "count": 60}]
    await asyncio.gather(*(user.close() for user in users))


async def test_pins_are_listed_newest_first(room: SharedRoom) -> None:
    sent = [await room.say(f"tip {number}") for number in range(3)]
    for item in sent:
        pin = await room.rest("ann").data("PUT", f"{room.path}/pins/{item['messageId']}")
        assert (pin["message"]["id"], pin["by"]) == (item["messageId"], "ann")
        assert (await room.ben.data("chat:pinned"))["pinned"] is True
    pins = await room.rest("ben").data("GET", f"{room.path}/pins")
    assert [pin["message"]["id"] for pin in pins] == [item["messageId"] for item in reversed(sent)]
    status, body = await room.rest("ben").call("PUT", f"{room.path}/pins/{sent[0]['messageId']}")
    assert (status, body["error"]["code"]) == (403, "FORBIDDEN")
    for _ in range(2):
        assert await room.rest("ann").data("DELETE", f"{room.path}/pins/{sent[0]['messageId']}") == {
            "id": sent[0]["messageId"]
        }
    assert len(await room.rest("ben").data("GET", f"{room.path}/pins")) == 2


async def test_replay_by_rev_shows_current_state(room: SharedRoom) -> None:
    kept, gone = await room.say("kept"), await room.say("gone")
    since = gone["rev"]
    await room.change("chat:edit", kept["messageId"], message="kept, first edit")
    await room.change("chat:edit", gone["messageId"], message="gone, edited")
    await room.change("chat:react", kept["messageId"], room.ben, emoji=THUMB)
    await room.change("chat:edit", kept["messageId"], message="kept, second edit")
    deleted = await room.change("chat:delete", gone["messageId"])
    last = await room.say("last")
    async with await LiveClient.as_user(room.urls[1], "cat") as cat:
        answer = (await cat.ask("subscribe", channel="chatroom", chatroomId=room.id, sinceRev=since))["data"]
        assert (answer["recovered"], answer["rev"]) == (True, last["rev"])
        await cat.barrier()
        assert answer["replayed"] == len(cat.frames) - len([f for f in cat.frames if "id" in f])
        shown = [(frame["type"], frame["data"].get("rev"), frame["data"].get("message")) for frame in cat.frames]
        assert shown == [
            ("chat:updated", since + 1, "kept, second edit"),
            ("member:joined", None, None),
            ("chat:reaction", since + 3, None),
            ("chat:updated", since + 4, "kept, second edit"),
            ("chat:deleted", deleted["data"]["rev"], None),
            ("chat:message", last["rev"], "last"),
        ]
        cat.frames.clear()
        answer = (await cat.ask("subscribe", channel="chatroom", chatroomId=room.id, since=0))["data"]
        await cat.barrier()
        texts = [frame["data"]["message"] for frame in cat.frames if frame["type"] == "chat:message"]
        assert (answer["recovered"], texts) == (True, ["kept, second edit", "", "last"])
        both = await cat.ask("subscribe", channel="chatroom", chatroomId=room.id, since=0, sinceRev=0)
        assert error_of(both)[0] == "VALIDATION"


async def test_replay_by_rev_shows_members_who_joined_by_a_message_or_reaction(room: SharedRoom) -> None:
    since = (await room.say("welcome"))["rev"]
    await room.ben.ask("chat:send", chatroomId=room.id, message="I post")
    gone = await room.say("soon gone")
    async with await LiveClient.as_user(room.urls[0], "cat") as cat:
        await room.change("chat:react", gone["messageId"], cat, emoji=THUMB)
    await room.change("chat:delete", gone["messageId"])
    async with await LiveClient.as_user(room.urls[1], "dan") as dan:
        answer = (await dan.ask("subscribe", channel="chatroom", chatroomId=room.id, sinceRev=since))["data"]
        await dan.barrier()
        assert [frame["type"] for frame in dan.frames] == [
            "member:joined",
            "chat:message",
            "chat:message",
            "member:joined",
            "chat:deleted",
        ]
        assert answer["replayed"] == len(dan.frames)
        joined = [frame["data"] for frame in dan.frames if frame["type"] == "member:joined"]
        assert [(data["userId"], data["memberCount"]) for data in joined] == [("ben", 2), ("cat", 3)]


async def test_replay_shared_with_an_earlier_reader_shows_no_deleted_text(room: SharedRoom) -> None:
    sent = await room.say("a secret tip")

    async def replayed(user_id: str, **position: int) -> list[str]:
        async with await LiveClient.as_user(room.urls[1], user_id) as client:
            await client.ask("subscribe", channel="chatroom", chatroomId=room.id, **position)
            await client.barrier()
            return [frame["data"]["message"] for frame in client.frames if frame["type"] == "chat:message"]

    assert await replayed("cat", since=0) == await replayed("cat", sinceRev=0) == ["a secret tip"]
    await room.change("chat:delete", sent["messageId"])
    assert await replayed("dan", since=0) == await replayed("dan", sinceRev=0) == [""]


async def test_replies_attachments_and_mentions_are_shown(room: SharedRoom) -> None:
    first = await room.say("a question about gold")
    picture = {"kind": "image", "url": "https://example.com/chart.png", "width": 640}
    ack = await room.ann.ask(
        "chat:send",
        chatroomId=room.id,
        message="",
        replyTo=first["messageId"],
        mentions=["ben", "ben", "stranger"],
        attachments=[picture],
    )
    seen = await room.ben.data("chat:message")
    assert seen["replyTo"] == {"messageId": first["messageId"], "userId": "ann", "message": "a question about gold"}
    assert (seen["mentions"], seen["attachments"]) == (["ben", "stranger"], [picture])
    view = await room.view(ack["data"]["messageId"])
    assert {name: view[name] for name in ("replyTo", "mentions", "attachments", "message")} == {
        name: seen[name] for name in ("replyTo", "mentions", "attachments", "message")
    }
    replies = await room.rest("ben").data("GET", f"{room.path}/messages/{first['messageId']}/replies")
    assert [reply["id"] for reply in replies] == [ack["data"]["messageId"]]
    around = await room.rest("ben").data("GET", f"{room.path}/messages?around=1&limit=2")
    assert [message["seq"] for message in around] == [2, 1]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"message": " "}, "message"),
    ({"message": "x", "replyTo": "msg_unknown"}, ""),
    ({"message": "x", "replyTo": "no id"}, ""),
    ({"message": "x", "replyTo": 5}, "replyTo"),
    ({"message": "x", "mentions": [f"user_{n}" for n in range(21)]}, "mentions"),
    ({"message": "x", "attachments": [{"kind": "image", "url": "http://example.com/x"}]}, "attachments[0].url"),
    ({"message": "x", "attachments": [{"kind": "image", "url": "https://me:pw@example.com"}]}, "attachments[0].url"),
    ({"message": "x", "attachments": [{"kind": "video", "url": "https://example.com"}]}, "attachments[0].kind"),
    ({"message": "x", "attachments": [{"kind": "link", "url": "https://e.com", "width": 0}]}, "attachments[0].width"),
    ({"message": "x", "symbols": [f"S{n}" for n in range(11)]}, "symbols"),
]


@pytest.mark.parametrize(("fields", "field"), BAD, ids=lambda value: json.dumps(value)[:60])
async def test_bad_message_is_refused_by_name(room: SharedRoom, fields: dict[str, Any], field: str) -> None:
    code, _ = error_of(answer := await room.ann.ask("chat:send", chatroomId=room.id, **fields))
    assert code == ("VALIDATION" if field else "NOT_FOUND")
    if field:
        assert answer["data"]["details"][0]["field"] == field
    status, body = await room.rest("ann").call("POST", f"{room.path}/messages", json=fields)
    assert (status, body["error"]["code"]) == ((400, code) if field else (404, code))
    assert (await room.rest("ann").data("GET", f"{room.path}/messages")) == []


@pytest.mark.parametrize("message_id", ["msg_unknown", "no id", "x" * 129])
async def test_malformed_id_is_answered_like_an_unknown_one(room: SharedRoom, message_id: str) -> None:
    socket = await room.change("chat:edit", message_id, message="x")
    assert error_of(socket) == ("NOT_FOUND", "no such message")
    path = f"{room.path}/messages/{quote(message_id)}"
    for method, url, body in (
        ("PATCH", path, {"message": "x"}),
        ("GET", f"{room.path}/messages/search?q=word&before={quote(message_id)}", None),
        ("GET", f"/v1/search?q=word&before={quote(message_id)}", None),
        ("POST", "/v1/messages/direct", {"userId": "ben", "message": "x", "replyTo": message_id}),
    ):
        status, answer = await room.rest("ann").call(method, url, json=body)
        assert (status, answer["error"]["message"]) == (404, "no such message"), url


async def test_stranger_cannot_be_mentioned_in_a_private_room(room: SharedRoom) -> None:
    private = await room.rest("ann").create_room(type_="private", memberIds=["ben"])
    code, message = error_of(await room.ann.ask("chat:send", chatroomId=private, message="x", mentions=["ben", "eve"]))
    assert code == "VALIDATION"
    assert "eve" in message


async def test_only_moderators_mention_the_room(room: SharedRoom) -> None:
    everybody: dict[str, Any] = {"chatroomId": room.id, "message": "x", "mentionRoom": True}
    assert error_of(await room.ben.ask("chat:send", **everybody))[0] == "FORBIDDEN"
    assert (await room.ann.ask("chat:send", **everybody))["type"] == "chat:ack"
    assert (await room.ben.data("chat:message"))["mentionRoom"] is True


async def test_private_room_of_others_does_not_exist(room: SharedRoom) -> None:
    private = await room.rest("ann").create_room(type_="private")
    sent = (await room.ann.ask("chat:send", chatroomId=private, message="x"))["data"]["messageId"]
    eve = room.rest("eve")
    for method, path, body in (
        ("GET", f"messages/{sent}", None),
        ("PATCH", f"messages/{sent}", {"message": "y"}),
        ("DELETE", f"messages/{sent}", None),
        ("GET", f"messages/{sent}/replies", None),
        ("GET", f"messages/{sent}/reactions", None),
        ("PUT", f"messages/{sent}/reactions/{quote(THUMB)}", None),
        ("GET", "pins", None),
        ("PUT", f"pins/{sent}", None),
    ):
        there = await eve.call(method, f"/v1/chatrooms/{private}/{path}", json=body)
        nowhere = await eve.call(method, f"/v1/chatrooms/room_unknown/{path}", json=body)
        assert there == nowhere, path
        assert there[0] == 404
