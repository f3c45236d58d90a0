"""Message search over REST, on the real broker and database and the real wire."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from chat_service.search.indexer import ROWS_MAX
from shared.ids import Prefix, new_id
from shared.mongo import Document
from tests.support.infrastructure import Infrastructure
from tests.support.people import Meet, Person, people
from tests.support.queues import empty_queues
from tests.support.services import chat_service, gateway_alone
from tests.support.waiting import until_async

NO_ROOM = {"success": False, "status": 404, "error": {"code": "NOT_FOUND", "message": "no such room"}}
LINES = ROWS_MAX  # of a room: the index is written at once
FOUND_WITHIN_S = 2.0


class SearchSystem(NamedTuple):
    """One gateway and one chat_service, shared by all tests here; each test has its own users."""

    url: str
    database_name: str


@pytest.fixture(scope="module")
async def system(infrastructure: Infrastructure) -> AsyncIterator[SearchSystem]:
    await empty_queues(infrastructure.amqp_url)
    database_name = new_id(Prefix.COMMAND)
    async with (
        chat_service(infrastructure.amqp_url, infrastructure.mongodb_uri, database_name),
        gateway_alone(infrastructure.amqp_url) as url,
    ):
        yield SearchSystem(url, database_name)


@pytest.fixture
def meet(system: SearchSystem) -> Meet:
    return people(system.url)


async def send(person: Person, room_id: str, *texts: str) -> list[str]:
    """Send messages and return their ids."""
    return [
        (await person.data("POST", f"/v1/chatrooms/{room_id}/messages", json={"message": text}))["id"] for text in texts
    ]


async def found(person: Person, path: str, **query: str) -> tuple[list[str], str | None]:
    """Return the ids of a page of a search, and its `next`."""
    status, body = await person.call("GET", path, params=query)
    assert status == 200, body
    assert set(body) == {"success", "status", "data", "pagination"}
    assert set(body["pagination"]) <= {"next"}
    return [item["id"] for item in body["data"]], body["pagination"].get("next")


def in_room(room_id: str) -> str:
    return f"/v1/chatrooms/{room_id}/messages/search"


async def refused_field(person: Person, path: str, **query: str) -> Any:
    """Return the field that a VALIDATION failure names."""
    status, body = await person.call("GET", path, params=query)
    assert (status, body["error"]["code"]) == (400, "VALIDATION")
    (detail,) = body["error"]["details"]
    return detail["field"]


async def test_message_is_found_as_soon_as_it_is_acknowledged(meet: Meet) -> None:
    ann, ben = meet("ann"), meet("ben")
    room = await ann.create_room()
    first, second = await send(ann, room, "EUR/USD breaking Resistance", "gold is weak")
    (third,) = await send(ben, room, "eur is strong")
    for query, expected in (
        ("eur", [third, first]),
        ("EUR RESIST", [first]),
        ("weak gold", [second]),
        ("eur gold", []),
        ("!?", []),
    ):
        assert await found(ann, in_room(room), q=query) == (expected, None)
    assert await found(ann, in_room(room), q="eur", userId=ben.id) == ([third], None)


async def test_edited_message_is_found_by_its_new_words_and_a_deleted_one_never(meet: Meet) -> None:
    ann = meet("ann")
    room = await ann.create_room()
    first, second = await send(ann, room, "secret tip", "another tip")
    await ann.data("PATCH", f"/v1/chatrooms/{room}/messages/{first}", json={"message": "public hint"})
    await until_async(
        lambda: found(ann, in_room(room), q="public"), lambda page: page == ([first], None), FOUND_WITHIN_S
    )
    assert await found(ann, in_room(room), q="secret") == ([], None)
    await ann.data("DELETE", f"/v1/chatrooms/{room}/messages/{second}")
    assert await found(ann, in_room(room), q="another") == ([], None)
    assert await found(ann, "/v1/search", q="tip") == ([], None)


async def test_item_is_a_message_as_history_shows_it(meet: Meet) -> None:
    ann = meet("ann", first_name="Ann")
    room = await ann.create_room()
    await send(ann, room, "a needle")
    history = await ann.data("GET", f"/v1/chatrooms/{room}/messages")
    assert await ann.data("GET", in_room(room), params={"q": "needle"}) == history
    assert await ann.data("GET", "/v1/search", params={"q": "needle"}) == history


async def test_pages_follow_one_another_by_next(meet: Meet) -> None:
    ann = meet("ann")
    rooms = [await ann.create_room(), await ann.create_room()]
    sent = [id_ for number in range(5) for id_ in await send(ann, rooms[number % 2], f"number {number}")]
    for path, expected in ((in_room(rooms[0]), sent[::-2]), ("/v1/search", sent[::-1])):
        first, before = await found(ann, path, q="number", limit="2")
        assert first == expected[:2] and before is not None
        rest, end = await found(ann, path, q="number", limit="5", before=before)
        assert (rest, end) == (expected[2:], None)


async def test_all_rooms_of_the_caller_are_searched_and_no_others(meet: Meet) -> None:
    ann, ben = meet("ann"), meet("ben")
    public, private = await ann.create_room(), await ann.create_room(type_="private", member_ids=[])
    direct = await ann.data("POST", "/v1/messages/direct", json={"userId": ben.id, "message": "treasure direct"})
    (shown,) = await send(ann, public, "treasure public")
    (hidden,) = await send(ann, private, "treasure private")
    assert (await found(ann, "/v1/search", q="treasure"))[0] == [hidden, shown, direct["id"]]
    assert (await found(ben, "/v1/search", q="treasure"))[0] == [direct["id"]]  # not a member of the public room
    assert (await found(ben, in_room(public), q="treasure"))[0] == [shown]  # but may read it
    await ben.data("POST", f"/v1/chatrooms/{public}/join")
    assert (await found(ben, "/v1/search", q="treasure"))[0] == [shown, direct["id"]]
    await ben.data("POST", f"/v1/chatrooms/{public}/leave")
    assert (await found(ben, "/v1/search", q="treasure"))[0] == [direct["id"]]


async def test_room_of_others_does_not_exist(meet: Meet, system: SearchSystem) -> None:
    ann, eve = meet("ann"), meet("eve")
    private = await ann.create_room(type_="private")
    await send(ann, private, "secret")
    status, body = await eve.call("GET", in_room(private), params={"q": "secret"})
    assert (status, body) == (404, NO_ROOM)
    assert await eve.call("GET", in_room("room_unknown"), params={"q": "secret"}) == (404, NO_ROOM)
    assert (await found(eve, "/v1/search", q="secret")) == ([], None)
    async with aiohttp.ClientSession() as http, http.get(f"{system.url}{in_room(private)}?q=secret") as response:
        assert response.status == 401


@pytest.mark.parametrize("path", ["/v1/chatrooms/{room}/messages/search", "/v1/search"])
async def test_invalid_query_is_refused_with_its_field(meet: Meet, path: str) -> None:
    ann = meet("ann")
    path = path.format(room=await ann.create_room())
    for query in ({}, {"q": "a"}, {"q": "a" * 101}, {"q": ""}):
        assert await refused_field(ann, path, **query) == "q"
    assert await refused_field(ann, path, q="ab", limit="101") == "limit"
    assert (await found(ann, path, q="\U0001f600\U0001f600"))[0] == []
    for before in ("msg_unknown", "nonsense", "no id!"):
        status, body = await ann.call("GET", path, params={"q": "ab", "before": before})
        assert (status, body["error"]["message"]) == (404, "no such message")


async def test_before_of_another_room_is_not_found(meet: Meet) -> None:
    ann = meet("ann")
    room, other = await ann.create_room(), await ann.create_room()
    (elsewhere,) = await send(ann, other, "hello there")
    status, body = await ann.call("GET", in_room(room), params={"q": "hello", "before": elsewhere})
    assert (status, body["error"]["message"]) == (404, "no such message")


async def test_index_follows_the_log_and_a_deleted_room_leaves_it(
    meet: Meet, system: SearchSystem, mongodb_uri: str
) -> None:
    ann, ben = meet("ann"), meet("ben")
    room = await ann.create_room()
    half = LINES // 2  # two senders stay below the rate of one
    sent = await send(ann, room, *(f"line {number}" for number in range(half)))
    sent += await send(ben, room, *(f"line {number}" for number in range(half, LINES)))
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(mongodb_uri)
    words = client[system.database_name]["message_words"]
    await until_async(lambda: words.count_documents({"roomId": room, "through": LINES}), lambda count: count == 1)
    assert await found(ann, in_room(room), q=f"line {LINES - 1}") == ([sent[-1]], None)
    edit = ann.data("PATCH", f"/v1/chatrooms/{room}/messages/{sent[0]}", json={"message": "publicword"})
    await asyncio.gather(edit, send(ann, room, "a message in the same turn of the follower"))
    await until_async(
        lambda: found(ann, in_room(room), q="publicword"), lambda page: page == ([sent[0]], None), FOUND_WITHIN_S
    )
    await ann.data("DELETE", f"/v1/chatrooms/{room}")
    await until_async(lambda: words.count_documents({"roomId": room}), lambda count: count == 0)
    assert await ann.call("GET", in_room(room), params={"q": "line"}) == (404, NO_ROOM)
    client.close()
