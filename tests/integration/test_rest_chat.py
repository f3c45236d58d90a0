"""Chat and presence over REST: every documented call, on the real broker and database and the real wire."""

import asyncio
import json
import math
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from prometheus_client import REGISTRY

from shared.ids import Prefix, new_id
from tests.support.infrastructure import Infrastructure
from tests.support.people import Meet, Person, people
from tests.support.queues import empty_queues
from tests.support.services import chat_service, gateway_alone
from tests.support.tokens import SECRET, mint
from tests.support.waiting import until

ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NO_ROOM = {"success": False, "status": 404, "error": {"code": "NOT_FOUND", "message": "no such room"}}
PRESENCE_TIMEOUT_S = 15.0
CREATION_FAILED = {"route": "POST /v1/chatrooms", "status": "400"}


@pytest.fixture(scope="module")
async def url(infrastructure: Infrastructure) -> AsyncIterator[str]:
    """One gateway and one chat_service, shared by all tests here; each test has its own users."""
    await empty_queues(infrastructure.amqp_url)
    database_name = new_id(Prefix.COMMAND)
    async with (
        chat_service(infrastructure.amqp_url, infrastructure.mongodb_uri, database_name),
        gateway_alone(infrastructure.amqp_url) as started,
    ):
        yield started


@pytest.fixture
def meet(url: str) -> Meet:
    return people(url)


def word() -> str:
    """Return a word that is in no other room's name."""
    return f"w{secrets.token_hex(6)}"


async def fetch(method: str, url: str, **options: Any) -> tuple[aiohttp.ClientResponse, Any]:
    """Send one request without a token, and return the response and its JSON body."""
    async with aiohttp.ClientSession() as http, http.request(method, url, **options) as response:
        return response, await response.json()


async def refused(caller: Person, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Return the `error` of a failure, after checking the envelope."""
    status, body = await caller.call(method, path, **options)
    return error_of(status, body)


def error_of(status: int, body: Any) -> dict[str, Any]:
    assert status >= 400
    assert set(body) == {"success", "status", "error"}
    assert (body["success"], body["status"]) == (False, status)
    error: dict[str, Any] = body["error"]
    assert {"code", "message"} <= set(error) <= {"code", "message", "details", "retryAfterMs"}
    assert all(set(detail) == {"field", "reason"} for detail in error.get("details", []))
    return error


async def field_refused(caller: Person, method: str, path: str, **options: Any) -> str:
    """Return the field that a VALIDATION failure names."""
    error = await refused(caller, method, path, **options)
    assert error["code"] == "VALIDATION"
    assert len(error["details"]) == 1
    return str(error["details"][0]["field"])


async def say(caller: Person, room: str, *texts: str) -> list[dict[str, Any]]:
    return [
        await caller.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": text, "clientMessageId": None})
        for text in texts
    ]


async def page_of(caller: Person, path: str, **params: Any) -> tuple[list[Any], dict[str, int]]:
    """Return the items and the pagination of a list, after checking the envelope."""
    status, body = await caller.call("GET", path, params=params)
    assert set(body) == {"success", "status", "data", "pagination"}, body
    assert (status, body["success"], body["status"]) == (200, True, 200)
    assert set(body["pagination"]) == {"page", "limit", "total", "pages"}
    return body["data"], body["pagination"]


async def room_names(caller: Person, **params: Any) -> list[str]:
    rooms, _ = await page_of(caller, "/v1/chatrooms", **params)
    return [room["name"] for room in rooms]


async def seqs(caller: Person, room: str, **params: Any) -> list[int]:
    messages, _ = await page_of(caller, f"/v1/chatrooms/{room}/messages", **params)
    return [message["seq"] for message in messages]


# Rooms --------------------------------------------------------------------------------------------------------------


async def test_created_room_has_published_envelope(meet: Meet) -> None:
    alice = meet("alice")
    asked = {"name": "Gold Trading Strategies", "description": "Discuss XAU/USD trading", "type": "public"}
    status, body = await alice.call("POST", "/v1/chatrooms", json=asked)
    assert (status, set(body), body["success"], body["status"]) == (201, {"success", "status", "data"}, True, 201)
    room = body["data"]
    published = {
        *("id", "name", "description", "type", "memberCount"),
        *("activeNow", "lastMessageAt", "createdBy", "createdAt"),
    }
    assert published | {"unreadCount"} <= set(room)
    assert {name: room[name] for name in asked} == asked
    assert room["id"].startswith("room_")
    assert (room["createdBy"], room["memberCount"], room["unreadCount"]) == (alice.id, 1, 0)
    assert room["lastMessageAt"] is None
    assert ISO_TIME.fullmatch(room["createdAt"])
    assert await alice.call("GET", f"/v1/chatrooms/{room['id']}") == (
        200,
        {"success": True, "status": 200, "data": room},
    )


async def test_room_needs_only_name(meet: Meet) -> None:
    room = await meet("alice").data("POST", "/v1/chatrooms", json={"name": " Gold ", "more": "of no meaning"})
    assert (room["name"], room["description"], room["type"]) == ("Gold", "", "public")


async def test_longest_name_and_description_are_accepted(meet: Meet) -> None:
    asked = {"name": "ü" * 100, "description": "€" * 1000, "type": "group"}
    room = await meet("alice").data("POST", "/v1/chatrooms", json=asked)
    assert {name: room[name] for name in asked} == asked


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " \t"}, "name"),
        ({"name": "\u200b\u3164"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": 5}, "name"),
        ({"name": None}, "name"),
        ({"name": "x", "description": "x" * 1001}, "description"),
        ({"name": "x", "description": 5}, "description"),
        ({"name": "x", "type": "secret"}, "type"),
        ({"name": "x", "type": ["public"]}, "type"),
        ({"name": "x", "memberIds": "bob"}, "memberIds"),
        ({"name": "x", "memberIds": ["bob", " not an id"]}, "memberIds[1]"),
        ({"name": "x", "memberIds": [7]}, "memberIds[0]"),
    ],
)
async def test_create_names_wrong_field(meet: Meet, body: Any, field: str) -> None:
    assert await field_refused(meet("alice"), "POST", "/v1/chatrooms", json=body) == field


async def test_list_has_public_and_own_rooms_only(meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    topic = word()
    for type_ in ("public", "private", "group"):
        await alice.create_room(f"{topic} {type_} of alice", type_)
    await alice.create_room(f"{topic} private of both", "private", memberIds=[bob.id])
    assert set(await room_names(bob, q=topic)) == {f"{topic} public of alice", f"{topic} private of both"}
    assert len(await room_names(alice, q=topic)) == 4


@pytest.mark.parametrize("type_", ["public", "private", "group"])
async def test_list_filters_by_type(meet: Meet, type_: str) -> None:
    alice = meet("alice")
    topic = word()
    for each in ("public", "private", "group"):
        await alice.create_room(f"{topic} {each}", each)
    rooms, pagination = await page_of(alice, "/v1/chatrooms", q=topic, type=type_)
    assert [room["type"] for room in rooms] == [type_]
    assert pagination["total"] == 1


async def test_q_matches_word_prefixes(meet: Meet) -> None:
    alice = meet("alice")
    topic = word()
    name = f"EUR/USD Trading Über-Room {topic}"
    await alice.create_room(name)
    for found in ("eur", "USD", "usd", "TRAD", "über", "eur/usd", "room", "trading eur", topic[:-1]):
        assert name in await room_names(alice, q=f"{found} {topic}"), found
    for not_found in ("rading", "sd", "oom", "gold", "trading gold", ".*", "^trad"):
        wanted = [] if not_found not in (".*", "^trad") else [name]
        assert await room_names(alice, q=f"{not_found} {topic}") == wanted, not_found


async def test_q_without_a_word_finds_nothing(meet: Meet) -> None:
    alice = meet("alice")
    await alice.create_room(word())
    assert await page_of(alice, "/v1/chatrooms", q=".*") == ([], {"page": 1, "limit": 20, "total": 0, "pages": 0})


async def test_q_follows_renamed_room(meet: Meet) -> None:
    alice = meet("alice")
    before, after = word(), word()
    room = await alice.create_room(before)
    await alice.data("PUT", f"/v1/chatrooms/{room}", json={"name": after})
    assert (await room_names(alice, q=before), await room_names(alice, q=after)) == ([], [after])


async def test_room_pages_hold_every_room_once(meet: Meet) -> None:
    alice = meet("alice")
    topic = word()
    for number in range(5):
        await alice.create_room(f"{topic} {number}", "public" if number % 2 else "private")
    found = []
    for page, size in ((1, 2), (2, 2), (3, 1), (4, 0), (1_000_000, 0)):
        rooms, pagination = await page_of(alice, "/v1/chatrooms", q=topic, page=page, limit=2)
        assert pagination == {"page": page, "limit": 2, "total": 5, "pages": 3}
        assert len(rooms) == size
        found += [room["name"] for room in rooms]
    assert found == [f"{topic} {number}" for number in (4, 3, 2, 1, 0)]


async def test_room_list_defaults_to_the_first_twenty(meet: Meet) -> None:
    alice = meet("alice")
    await asyncio.gather(*(alice.create_room(type_="private") for _ in range(21)))
    rooms, pagination = await page_of(alice, "/v1/chatrooms", type="private")
    assert (len(rooms), pagination) == (20, {"page": 1, "limit": 20, "total": 21, "pages": 2})
    rooms, pagination = await page_of(alice, "/v1/chatrooms", type="private", limit=100)
    assert (len(rooms), pagination["pages"]) == (21, 1)


@pytest.mark.parametrize("path", ["/v1/chatrooms", "/v1/chatrooms/{room}/messages", "/v1/chatrooms/{room}/members"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("page", value) for value in ("0", "-1", "1.5", "x", "null", "9" * 30, "0x10")],
        *[("limit", value) for value in ("0", "101", "-1", "ten")],
    ],
)
async def test_wrong_page_or_limit_is_named(meet: Meet, path: str, name: str, value: str) -> None:
    alice = meet("alice")
    room = await alice.create_room() if "{room}" in path else ""
    assert await field_refused(alice, "GET", path.format(room=room), params={name: value}) == name


@pytest.mark.parametrize(("name", "value"), [("type", "secret"), ("type", "null"), ("q", "x" * 101)])
async def test_wrong_filter_is_named(meet: Meet, name: str, value: str) -> None:
    assert await field_refused(meet("alice"), "GET", "/v1/chatrooms", params={name: value}) == name


async def test_repeated_list_is_joined_and_other_repetition_is_refused(meet: Meet) -> None:
    alice = meet("alice")
    users = await alice.data("GET", "/v1/presence?ids=ada&ids=bob,cy&ids=&ids=d%252Ce")
    assert [user["userId"] for user in users] == ["ada", "bob", "cy", "d,e"]
    assert await field_refused(alice, "GET", "/v1/chatrooms?limit=1&limit=2") == "limit"
    assert await field_refused(alice, "GET", "/v1/chatrooms?q=a&page=1&q=b") == "q"
    await alice.data("GET", "/v1/chatrooms?limit=&limit=2&other=1&other=2")


async def test_empty_and_unknown_parameters_are_ignored(meet: Meet) -> None:
    params = {"page": "", "limit": "", "type": "", "q": "", "sort": "name"}
    _, pagination = await page_of(meet("alice"), "/v1/chatrooms", **params)
    assert (pagination["page"], pagination["limit"]) == (1, 20)


async def test_rooms_are_sorted_by_latest_activity(meet: Meet) -> None:
    alice = meet("alice")
    rooms = {name: await alice.create_room(name, "private" if name == "b" else "group") for name in ("a", "b", "c")}
    assert await room_names(alice, type="group") == ["c", "a"]
    (message,) = await say(alice, rooms["a"], "up")
    listed, _ = await page_of(alice, "/v1/chatrooms", limit=100)
    own = [room for room in listed if room["createdBy"] == alice.id]
    assert [room["name"] for room in own] == ["a", "c", "b"]
    assert [room["lastMessageAt"] for room in own] == [message["createdAt"], None, None]


async def test_creator_and_admin_change_only_given_fields(meet: Meet) -> None:
    alice, admin = meet("alice"), meet("admin", role="admin")
    room = await alice.create_room("Gold", "public", description="XAU")
    changed = await alice.data("PUT", f"/v1/chatrooms/{room}", json={"name": " Silver "})
    assert (changed["name"], changed["description"], changed["type"]) == ("Silver", "XAU", "public")
    changed = await admin.data("PUT", f"/v1/chatrooms/{room}", json={"description": "XAG", "type": "private"})
    assert (changed["name"], changed["description"], changed["type"]) == ("Silver", "XAG", "private")
    assert await alice.data("GET", f"/v1/chatrooms/{room}") == {**changed, "isMember": True}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"description": "x" * 1001}, "description"),
        ({"type": "direct"}, "type"),
    ],
)
async def test_update_names_wrong_field_and_changes_nothing(meet: Meet, body: Any, field: str) -> None:
    alice = meet("alice")
    room = await alice.data("POST", "/v1/chatrooms", json={"name": "Gold", "description": "XAU"})
    assert await field_refused(alice, "PUT", f"/v1/chatrooms/{room['id']}", json={"name": "Silver"} | body) == field
    assert await alice.data("GET", f"/v1/chatrooms/{room['id']}") == room


async def test_room_made_private_is_hidden_from_non_members(meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room()
    await bob.data("GET", f"/v1/chatrooms/{room}")
    await alice.data("PUT", f"/v1/chatrooms/{room}", json={"type": "private"})
    assert await bob.call("GET", f"/v1/chatrooms/{room}") == (404, NO_ROOM)
    await alice.data("PUT", f"/v1/chatrooms/{room}", json={"type": "public"})
    await bob.data("GET", f"/v1/chatrooms/{room}")


@pytest.mark.parametrize("role", ["creator", "admin"])
async def test_deleted_room_is_not_found_by_any_call(meet: Meet, role: str) -> None:
    alice, admin = meet("alice"), meet("admin", role="admin")
    topic = word()
    room = await alice.create_room(topic)
    await say(alice, room, "x")
    deleter = alice if role == "creator" else admin
    assert await deleter.call("DELETE", f"/v1/chatrooms/{room}") == (
        200,
        {"success": True, "status": 200, "data": {"id": room}},
    )
    assert await room_names(alice, q=topic) == []
    for method, path, options in calls_on(room, alice.id):
        assert await alice.call(method, path, **options) == (404, NO_ROOM), path


@pytest.mark.parametrize("membership", ["member", "stranger"])
@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("PUT", "", {"json": {"name": "Mine"}}),
        ("DELETE", "", {}),
        ("PUT", "/members/carol", {}),
        ("DELETE", "/members/{alice}", {}),
    ],
)
async def test_only_creator_or_admin_manages_public_room(
    meet: Meet, membership: str, method: str, path: str, options: dict[str, Any]
) -> None:
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room()
    if membership == "member":
        await bob.data("POST", f"/v1/chatrooms/{room}/join")
    path = f"/v1/chatrooms/{room}{path.format(alice=alice.id)}"
    status, body = await bob.call(method, path, **options)
    assert (status, error_of(status, body)["code"]) == (403, "FORBIDDEN")
    assert (await alice.data("GET", f"/v1/chatrooms/{room}"))["name"] == "Room"


def calls_on(room: str, user_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return every call that names a room."""
    path = f"/v1/chatrooms/{room}"
    return [
        ("GET", path, {}),
        ("PUT", path, {"json": {"name": "x"}}),
        ("DELETE", path, {}),
        ("GET", f"{path}/messages", {}),
        ("GET", f"{path}/messages", {"params": {"before": 5}}),
        ("POST", f"{path}/messages", {"json": {"message": "x"}}),
        ("POST", f"{path}/join", {}),
        ("POST", f"{path}/leave", {}),
        ("POST", f"{path}/read", {"json": {"seq": 0}}),
        ("GET", f"{path}/members", {}),
        ("PUT", f"{path}/members/{user_id}", {}),
        ("DELETE", f"{path}/members/{user_id}", {}),
    ]


@pytest.mark.parametrize("kind", ["private", "group", "unknown", "no id", "no id at all"])
async def test_room_of_others_is_answered_like_missing_room(meet: Meet, kind: str) -> None:
    alice, bob = meet("alice"), meet("bob")
    match kind:
        case "unknown":
            room = new_id(Prefix.ROOM)
        case "no id":
            room = "a%20b"
        case "no id at all":
            room = "x" * 200
        case _:
            room = await alice.create_room(type_=kind)
    for method, path, options in calls_on(room, alice.id):
        assert await bob.call(method, path, **options) == (404, NO_ROOM), (method, path)


# Members ------------------------------------------------------------------------------------------------------------


async def test_join_and_leave_are_idempotent(meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room()
    for _ in range(2):
        joined = await bob.data("POST", f"/v1/chatrooms/{room}/join")
        assert (joined["id"], joined["memberCount"], joined["isMember"]) == (room, 2, True)
    for _ in range(2):
        left = await bob.data("POST", f"/v1/chatrooms/{room}/leave")
        assert (left["id"], left["memberCount"], left["isMember"]) == (room, 1, False)


async def insist(person: Person, method: str, path: str, **options: Any) -> None:
    """Make a call, again while it is refused as overload: 60 commands wait for one room."""
    status, body = await person.call(method, path, **options)
    if status == 503:
        await asyncio.sleep(body["error"]["retryAfterMs"] / 1000)
        await insist(person, method, path, **options)
    else:
        assert status in (200, 201), body


async def test_member_count_is_exact_under_concurrency(meet: Meet) -> None:
    alice = meet("alice")
    crowd = [meet("user") for _ in range(20)]
    room = await alice.create_room(memberIds=[person.id for person in crowd[:5]] + [alice.id, crowd[0].id])
    assert (await alice.data("GET", f"/v1/chatrooms/{room}"))["memberCount"] == 6
    path = f"/v1/chatrooms/{room}"
    message = {"json": {"message": "x"}}
    await asyncio.gather(
        *(insist(person, "POST", f"{path}/join") for person in crowd for _ in range(2)),
        *(insist(alice, "PUT", f"{path}/members/{person.id}") for person in crowd[10:]),
        *(insist(person, "POST", f"{path}/messages", **message) for person in crowd[5:15]),
    )
    await asyncio.gather(
        *(insist(person, "POST", f"{path}/leave") for person in crowd[:8] for _ in range(2)),
        *(insist(alice, "DELETE", f"{path}/members/{person.id}") for person in crowd[15:]),
    )
    members, pagination = await page_of(alice, f"{path}/members", limit=100)
    assert {member["userId"] for member in members} == {alice.id, *(person.id for person in crowd[8:15])}
    assert pagination["total"] == (await alice.data("GET", path))["memberCount"] == 8


async def test_only_invited_users_join_closed_room(meet: Meet) -> None:
    alice, bob, carol = meet("alice"), meet("bob"), meet("carol")
    room = await alice.create_room(type_="group")
    path = f"/v1/chatrooms/{room}"
    assert await bob.call("POST", f"{path}/join") == (404, NO_ROOM)
    invited = await alice.data("PUT", f"{path}/members/{bob.id}")
    assert set(invited) == {"userId", "user", "role", "joinedAt", "status", "lastSeenAt"}
    assert (invited["userId"], invited["role"], invited["status"]) == (bob.id, "member", "offline")
    assert (await alice.data("PUT", f"{path}/members/{bob.id}"))["joinedAt"] == invited["joinedAt"]
    assert (await bob.data("GET", path))["memberCount"] == 2
    assert (await bob.data("POST", f"{path}/leave"))["memberCount"] == 1
    assert await bob.call("GET", path) == (404, NO_ROOM)
    assert (await bob.data("POST", f"{path}/join"))["memberCount"] == 2  # still invited
    assert await alice.data("DELETE", f"{path}/members/{bob.id}") == {"id": bob.id}
    assert await bob.call("POST", f"{path}/join") == (404, NO_ROOM)
    assert await carol.call("GET", path) == (404, NO_ROOM)


async def test_removing_non_member_is_not_found(meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    assert (await refused(alice, "DELETE", f"/v1/chatrooms/{room}/members/nobody"))["code"] == "NOT_FOUND"
    assert (await alice.data("GET", f"/v1/chatrooms/{room}"))["memberCount"] == 1


async def test_admin_manages_members_of_any_room(meet: Meet) -> None:
    alice, bob, admin = meet("alice"), meet("bob"), meet("admin", role="admin")
    room = await alice.create_room(type_="private")
    await admin.data("PUT", f"/v1/chatrooms/{room}/members/{bob.id}")
    assert (await bob.data("GET", f"/v1/chatrooms/{room}"))["memberCount"] == 2
    await admin.data("DELETE", f"/v1/chatrooms/{room}/members/{bob.id}")
    assert await bob.call("GET", f"/v1/chatrooms/{room}") == (404, NO_ROOM)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("user_id", ["a%0Ab", "%20a", "me", "deleted-user", "system:gateway"])
async def test_add_member_names_wrong_user_id(meet: Meet, method: str, user_id: str) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    assert await field_refused(alice, method, f"/v1/chatrooms/{room}/members/{user_id}") == "userId"


async def test_members_are_listed_with_role_profile_and_pages(meet: Meet) -> None:
    alice, bob = meet("alice", firstName="Alice", lastName="A", avatar="https://a"), meet("bob")
    room = await alice.create_room()
    await bob.data("POST", f"/v1/chatrooms/{room}/join")
    members, pagination = await page_of(alice, f"/v1/chatrooms/{room}/members")
    assert pagination == {"page": 1, "limit": 20, "total": 2, "pages": 1}
    assert all(ISO_TIME.fullmatch(member.pop("joinedAt")) for member in members)
    offline = {"status": "offline", "lastSeenAt": None}
    assert members == [
        {
            "userId": alice.id,
            "user": {"firstName": "Alice", "lastName": "A", "avatar": "https://a"},
            "role": "creator",
            **offline,
        },
        {"userId": bob.id, "user": {"firstName": "", "lastName": "", "avatar": None}, "role": "member", **offline},
    ]
    second, pagination = await page_of(alice, f"/v1/chatrooms/{room}/members", page=2, limit=1)
    assert ([member["userId"] for member in second], pagination["pages"]) == ([bob.id], 2)
    assert (await page_of(alice, f"/v1/chatrooms/{room}/members", page=3, limit=1))[0] == []


async def test_presence_shows_in_members_rooms_and_presence_calls(meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room(memberIds=[bob.id])
    never_seen = {"userId": bob.id, "status": "offline", "lastSeenAt": None}
    assert await alice.data("GET", f"/v1/users/{bob.id}/presence") == never_seen
    async with await bob.live():
        online = await presence_becomes(alice, bob.id, "online")
        members, _ = await page_of(alice, f"/v1/chatrooms/{room}/members")
        assert [member["status"] for member in members] == ["offline", "online"]
        assert (await alice.data("GET", f"/v1/chatrooms/{room}"))["activeNow"] == 1
        asked = {"ids": f"{alice.id},{bob.id},{alice.id}"}
        assert await alice.data("GET", "/v1/presence", params=asked) == [
            {"userId": alice.id, "status": "offline", "lastSeenAt": None},
            online,
        ]
    offline = await presence_becomes(alice, bob.id, "offline")
    assert ISO_TIME.fullmatch(offline["lastSeenAt"])
    members, _ = await page_of(alice, f"/v1/chatrooms/{room}/members")
    assert (members[1]["status"], members[1]["lastSeenAt"]) == ("offline", offline["lastSeenAt"])
    assert (await alice.data("GET", f"/v1/chatrooms/{room}"))["activeNow"] == 0


async def presence_becomes(asker: Person, user_id: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(PRESENCE_TIMEOUT_S):
        while True:
            presence: dict[str, Any] = await asker.data("GET", f"/v1/users/{user_id}/presence")
            if presence["status"] == status:
                return presence
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "ids"),
        ({"ids": ""}, "ids"),
        ({"ids": " , "}, "ids"),
        ({"ids": "alice,b\tc"}, "ids[1]"),
        ({"ids": "alice,me"}, "ids[1]"),
        ({"ids": ",".join(f"u{number}" for number in range(101))}, "ids"),
    ],
)
async def test_wrong_presence_ids_are_named(meet: Meet, params: dict[str, str], field: str) -> None:
    assert await field_refused(meet("alice"), "GET", "/v1/presence", params=params) == field


async def test_presence_of_hundred_users_keeps_order(meet: Meet) -> None:
    ids = [f"u{number}" for number in range(100, 0, -1)]
    users = await meet("alice").data("GET", "/v1/presence", params={"ids": ",".join(ids)})
    assert [user["userId"] for user in users] == ids


async def test_presence_of_invalid_id_is_refused(meet: Meet) -> None:
    assert await field_refused(meet("alice"), "GET", "/v1/users/a%0Ab/presence") == "userId"


async def test_author_of_erased_messages_has_a_presence(meet: Meet) -> None:
    shown = await meet("alice").data("GET", "/v1/presence", params={"ids": "deleted-user"})
    assert [user["status"] for user in shown] == ["offline"]


ODD_IDS = ["o'brien@example.com", "corp/ada", "José, A.", "a|b&c", "50%", "50%25", '"quoted\\', "$set", "\U0001f600"]


async def test_user_ids_of_other_issuers_work_in_paths_lists_and_rooms(url: str) -> None:
    users = [Person(url, name, SECRET, {}) for name in ODD_IDS]
    alice, *others = users
    room = await alice.create_room(type_="private")
    for other in others:
        path = f"/v1/chatrooms/{room}/members/{quote(other.id, safe='')}"
        assert (await alice.data("PUT", path))["userId"] == other.id
    members, _ = await page_of(alice, f"/v1/chatrooms/{room}/members")
    assert {member["userId"] for member in members} == set(ODD_IDS)
    for user in users:
        await say(user, room, "hello")
        shown = await alice.data("GET", f"/v1/users/{quote(user.id, safe='')}/presence")
        assert shown["userId"] == user.id
    listed = await alice.data("GET", "/v1/presence", params={"ids": ",".join(quote(name, safe="") for name in ODD_IDS)})
    assert [user["userId"] for user in listed] == ODD_IDS


async def test_sends_of_different_users_are_never_repeats_of_one_another(url: str) -> None:
    pairs = [("u", "x/y"), ("u/x", "y"), ("u%2Fx", "y"), ("u,x", "y"), ("u", "x,y")]
    users = {name: Person(url, name, SECRET, {}) for name, _ in pairs}
    room = await users["u"].create_room()
    sent = []
    for name, client_id in [*pairs, *pairs]:
        body = {"message": name, "clientMessageId": client_id}
        sent.append(await users[name].data("POST", f"/v1/chatrooms/{room}/messages", json=body))
    assert len({message["id"] for message in sent}) == len(pairs)
    assert [message["userId"] for message in sent] == [name for name, _ in [*pairs, *pairs]]


# Messages -----------------------------------------------------------------------------------------------------------


async def test_sent_message_has_published_form(meet: Meet) -> None:
    alice = meet("alice", firstName="John", lastName="Doe", avatar="https://a")
    room = await alice.create_room()
    text = 'EUR/USD «bullish» "1.0850" 📈\n\u0000\u2028</script>'
    status, body = await alice.call("POST", f"/v1/chatrooms/{room}/messages", json={"message": text})
    assert (status, set(body), body["success"], body["status"]) == (201, {"success", "status", "data"}, True, 201)
    sent = body["data"]
    assert sent["id"].startswith("msg_")
    assert ISO_TIME.fullmatch(sent["createdAt"])
    assert (sent["chatroomId"], sent["userId"], sent["message"], sent["seq"]) == (room, alice.id, text, 1)
    assert sent["user"] == {"firstName": "John", "lastName": "Doe", "avatar": "https://a"}
    assert await page_of(alice, f"/v1/chatrooms/{room}/messages") == (
        [sent],
        {"page": 1, "limit": 50, "total": 1, "pages": 1},
    )


async def test_first_message_in_public_room_joins_sender(meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room()
    assert (await bob.data("GET", f"/v1/chatrooms/{room}"))["isMember"] is False
    await say(bob, room, "hello")
    joined = await bob.data("GET", f"/v1/chatrooms/{room}")
    assert (joined["isMember"], joined["memberCount"], joined["unreadCount"]) == (True, 2, 0)


async def test_message_pages_are_newest_first(meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    assert await page_of(alice, f"/v1/chatrooms/{room}/messages") == (
        [],
        {"page": 1, "limit": 50, "total": 0, "pages": 0},
    )
    await say(alice, room, *(f"m{number}" for number in range(1, 8)))
    for page, expected in ((1, [7, 6, 5]), (2, [4, 3, 2]), (3, [1]), (4, []), (1_000_000, [])):
        messages, pagination = await page_of(alice, f"/v1/chatrooms/{room}/messages", page=page, limit=3)
        assert [message["seq"] for message in messages] == expected
        assert [message["message"] for message in messages] == [f"m{seq}" for seq in expected]
        assert pagination == {"page": page, "limit": 3, "total": 7, "pages": 3}


async def test_cursors_reach_every_message(meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    await say(alice, room, *"abcdefg")
    assert await seqs(alice, room, before=4, limit=2) == [3, 2]
    assert await seqs(alice, room, before=2, limit=2) == [1]
    assert await seqs(alice, room, before=1) == await seqs(alice, room, before=0) == []
    assert await seqs(alice, room, before=1000, limit=2) == [7, 6]
    assert await seqs(alice, room, after=4) == [7, 6, 5]
    assert await seqs(alice, room, after=0, limit=2) == [2, 1]
    assert await seqs(alice, room, after=7) == await seqs(alice, room, after=1000) == []
    assert await seqs(alice, room, after=2, before=5) == [4, 3]


@pytest.mark.parametrize(
    ("name", "value"), [("before", "-1"), ("before", "x"), ("after", "1.5"), ("after", str(2**60))]
)
async def test_wrong_cursor_is_named(meet: Meet, name: str, value: str) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    assert await field_refused(alice, "GET", f"/v1/chatrooms/{room}/messages", params={name: value}) == name


async def test_resent_message_returns_same_message_with_200(meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    room, other_room = await alice.create_room(), await alice.create_room()
    body = {"message": "once", "clientMessageId": "c-1"}
    first_status, first = await alice.call("POST", f"/v1/chatrooms/{room}/messages", json=body)
    again_status, again = await alice.call("POST", f"/v1/chatrooms/{room}/messages", json=body | {"message": "twice"})
    assert (first_status, again_status, first["data"]) == (201, 200, again["data"])
    assert (first["status"], again["status"]) == (201, 200)
    assert (await bob.call("POST", f"/v1/chatrooms/{room}/messages", json=body))[0] == 201
    assert (await alice.call("POST", f"/v1/chatrooms/{other_room}/messages", json=body))[0] == 201
    assert await seqs(alice, room) == [2, 1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "message"),
        ({"message": ""}, "message"),
        ({"message": " \n\t"}, "message"),
        ({"message": 5}, "message"),
        ({"message": None}, "message"),
        ({"message": "x", "clientMessageId": ""}, "clientMessageId"),
        ({"message": "x", "clientMessageId": "x" * 129}, "clientMessageId"),
        ({"message": "x", "clientMessageId": 5}, "clientMessageId"),
    ],
)
async def test_send_names_wrong_field_and_stores_nothing(meet: Meet, body: Any, field: str) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    assert await field_refused(alice, "POST", f"/v1/chatrooms/{room}/messages", json=body) == field
    assert await field_refused(alice, "POST", "/v1/messages/direct", json={"userId": "bob"} | body) == field
    assert await seqs(alice, room) == []


async def test_unread_count_follows_messages_and_read_mark(meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room(type_="private", memberIds=[bob.id])
    await say(alice, room, "a", "b", "c")

    async def unread(person: Person) -> int:
        (listed,) = [item for item in (await page_of(person, "/v1/chatrooms", type="private"))[0] if item["id"] == room]
        assert listed["unreadCount"] == (await person.data("GET", f"/v1/chatrooms/{room}"))["unreadCount"]
        return int(listed["unreadCount"])

    assert (await unread(alice), await unread(bob)) == (0, 3)
    for seq, left in ((2, 1), (1, 1), (2, 1), (3, 0)):
        mark = await bob.data("POST", f"/v1/chatrooms/{room}/read", json={"seq": seq})
        assert mark == {"chatroomId": room, "userId": bob.id, "seq": 3 - left}
        assert await unread(bob) == left
    await say(bob, room, "d")
    assert (await unread(alice), await unread(bob)) == (1, 0)


@pytest.mark.parametrize("seq", [-1, 2, 1.5, "1", None, 2**60])
async def test_wrong_read_mark_is_named(meet: Meet, seq: Any) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    await say(alice, room, "x")
    assert await field_refused(alice, "POST", f"/v1/chatrooms/{room}/read", json={"seq": seq}) == "seq"


async def test_read_mark_of_non_member_is_forbidden(meet: Meet) -> None:
    room = await meet("alice").create_room()
    assert (await refused(meet("bob"), "POST", f"/v1/chatrooms/{room}/read", json={"seq": 0}))["code"] == "FORBIDDEN"


async def test_direct_messages_share_one_hidden_room(meet: Meet) -> None:
    alice, bob, carol = meet("alice"), meet("bob"), meet("carol", role="admin")
    body = {"userId": bob.id, "message": "psst", "clientMessageId": "c-1"}
    status, first = await alice.call("POST", "/v1/messages/direct", json=body)
    assert (status, first["status"]) == (201, 201)
    assert await alice.call("POST", "/v1/messages/direct", json=body) == (200, first | {"status": 200})
    answer = await bob.data("POST", "/v1/messages/direct", json={"userId": alice.id, "message": "yes?"})
    room = first["data"]["chatroomId"]
    assert (answer["chatroomId"], answer["seq"]) == (room, 2)
    for person in (alice, bob):
        (listed,) = (await page_of(person, "/v1/chatrooms", type="private"))[0]
        assert (listed["id"], listed["memberCount"]) == (room, 2)
        assert await seqs(person, room) == [2, 1]
        for method, path, options in (
            ("PUT", "", {"json": {"type": "public"}}),
            ("DELETE", "", {}),
            ("POST", "/leave", {}),
            ("PUT", f"/members/{carol.id}", {}),
        ):
            error = await refused(person, method, f"/v1/chatrooms/{room}{path}", **options)
            assert error["code"] == "FORBIDDEN", path
    assert await carol.call("GET", f"/v1/chatrooms/{room}") == (404, NO_ROOM)


@pytest.mark.parametrize("user_id", [None, "", " a", "me", "deleted-user", 5, "self"])
async def test_direct_message_names_wrong_addressee(meet: Meet, user_id: Any) -> None:
    alice = meet("alice")
    body = {"userId": alice.id if user_id == "self" else user_id, "message": "x"}
    assert await field_refused(alice, "POST", "/v1/messages/direct", json=body) == "userId"


async def test_message_above_rate_limit_gets_429_with_retry_after(url: str, meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    headers = {"Authorization": f"Bearer {mint(alice.id)}"}

    async def post(path: str, body: dict[str, str]) -> tuple[aiohttp.ClientResponse, Any]:
        return await fetch("POST", f"{url}{path}", headers=headers, json=body)

    path = f"/v1/chatrooms/{room}/messages"
    answers = await asyncio.gather(*(post(path, {"message": f"m{number}"}) for number in range(103)))
    statuses = [response.status for response, _ in answers]
    assert (statuses.count(201), statuses.count(429)) == (100, 3)
    answers.append(await post("/v1/messages/direct", {"userId": "bob", "message": "x"}))
    for response, body in answers:
        if response.status == 429:
            assert error_of(429, body)["code"] == "RATE_LIMITED"
            assert 0 < body["error"]["retryAfterMs"] <= 60_000
            assert int(response.headers["Retry-After"]) == math.ceil(body["error"]["retryAfterMs"] / 1000)
    assert answers[-1][0].status == 429
    assert await alice.data("GET", f"/v1/chatrooms/{room}/messages", params={"limit": 1})


# Failures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "UNAUTHORIZED"),
        ("", "UNAUTHORIZED"),
        ("Bearer", "UNAUTHORIZED"),
        ("Bearer ", "UNAUTHORIZED"),
        ("Bearer no.jwt", "UNAUTHORIZED"),
        ("Basic dXNlcjpwYXNz", "UNAUTHORIZED"),
        (f"Bearer {mint('alice', secret='another secret, of the same good length')}", "UNAUTHORIZED"),
        (f"Bearer {mint('not an id ')}", "UNAUTHORIZED"),
        (f"Bearer {mint('alice', exp=None)}", "UNAUTHORIZED"),
        (f"Bearer {mint('alice', ttl_s=-5)}", "TOKEN_EXPIRED"),
        # {"alg":"none"}.{"sub":"alice","exp":9999999999}.
        ("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.", "UNAUTHORIZED"),
        ("Bearer " + "x" * 8000, "UNAUTHORIZED"),
    ],
)
async def test_invalid_token_gets_401(url: str, header: str | None, code: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    response, body = await fetch("GET", f"{url}/v1/chatrooms", headers=headers)
    assert error_of(response.status, body)["code"] == code
    assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    if header and len(header) > 20:
        assert header.partition(" ")[2] not in str(body)


PREFLIGHT = {
    "Origin": "https://app.example",
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def cors_headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("Access-Control-")}


@pytest.mark.parametrize("path", ["/v1/chatrooms", "/v1/market/prices", "/v1/chatrooms/r/members/u", "/v1/nothing"])
async def test_preflight_is_answered_without_token(url: str, path: str) -> None:
    async with aiohttp.ClientSession() as http, http.options(f"{url}{path}", headers=PREFLIGHT) as response:
        assert (response.status, await response.read()) == (204, b"")
    headers = cors_headers(response)
    assert headers["Access-Control-Allow-Origin"] == PREFLIGHT["Origin"]
    assert {"PUT", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert {"authorization", "content-type"} <= set(headers["Access-Control-Allow-Headers"].lower().split(", "))
    assert "Access-Control-Allow-Credentials" not in headers
    assert "Origin" in response.headers["Vary"]


async def test_page_of_another_origin_reads_answers_and_failures(url: str, meet: Meet) -> None:
    headers = {"Origin": "https://app.example", "Authorization": f"Bearer {mint('alice')}"}
    for path, status in (("/v1/chatrooms", 200), ("/v1/chatrooms?limit=0", 400), ("/v1/nothing", 404)):
        response, _ = await fetch("GET", f"{url}{path}", headers=headers)
        assert response.status == status
        assert cors_headers(response)["Access-Control-Allow-Origin"] == headers["Origin"]
        assert "Retry-After" in cors_headers(response)["Access-Control-Expose-Headers"]


async def test_only_allowed_origins_read_answers(infrastructure: Infrastructure) -> None:
    async with (
        gateway_alone(infrastructure.amqp_url, allowed_origins=("https://app.example",)) as url,
        aiohttp.ClientSession() as http,
    ):
        for origin, expected in (("https://app.example", "true"), ("https://other.example", None)):
            async with http.options(f"{url}/v1/chatrooms", headers={**PREFLIGHT, "Origin": origin}) as response:
                assert cors_headers(response).get("Access-Control-Allow-Credentials") == expected
            response, _ = await fetch("GET", f"{url}/v1/chatrooms", headers={"Origin": origin})
            assert (response.status, cors_headers(response).get("Access-Control-Allow-Credentials")) == (401, expected)
            assert (cors_headers(response) == {}) is (expected is None)


async def test_plain_options_is_not_a_preflight(url: str) -> None:
    response, _ = await fetch("OPTIONS", f"{url}/v1/chatrooms")
    assert response.status == 405


async def test_every_call_requires_token(url: str) -> None:
    others = [("GET", "/v1/chatrooms", {}), ("POST", "/v1/chatrooms", {"json": {"name": "x"}})]
    others += [("POST", "/v1/messages/direct", {"json": {"userId": "b", "message": "x"}})]
    others += [("GET", "/v1/users/bob/presence", {}), ("GET", "/v1/presence?ids=bob", {})]
    for method, path, options in others + calls_on("room_1", "bob"):
        response, body = await fetch(method, f"{url}{path}", **options)
        assert (response.status, error_of(401, body)["code"]) == (401, "UNAUTHORIZED"), (method, path)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v2/chatrooms", "/v1/chatroom", "/v1/chatrooms/", "/v1/chatrooms/r/x", "/%00", "/é"]
)
async def test_unknown_path_gets_404(meet: Meet, url: str, path: str) -> None:
    for response, body in (
        await fetch("GET", f"{url}{path}"),
        await fetch("GET", f"{url}{path}", headers={"Authorization": f"Bearer {mint('alice')}"}),
    ):
        assert (response.status, error_of(404, body)["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/v1/chatrooms", {"GET", "HEAD", "POST"}),
        ("DELETE", "/v1/chatrooms", {"GET", "HEAD", "POST"}),
        ("POST", "/v1/chatrooms/room_1", {"GET", "HEAD", "PUT", "DELETE"}),
        ("GET", "/v1/chatrooms/room_1/join", {"POST"}),
        ("GET", "/v1/messages/direct", {"POST"}),
        ("POST", "/v1/presence", {"GET", "HEAD"}),
        ("POST", "/v1/live", {"GET", "HEAD"}),
    ],
)
async def test_wrong_method_gets_405_with_allowed_methods(url: str, method: str, path: str, allowed: set[str]) -> None:
    response, body = await fetch(method, f"{url}{path}")
    assert response.status == 405
    assert error_of(405, body)["code"] in {"VALIDATION", "NOT_FOUND"}
    assert set(response.headers["Allow"].split(",")) == allowed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"name"',
        b"null",
        b'{"name": "x"} trailing',
        b'{"name": "\xff\xfe"}',
        b'{"name": "x", }',
        b"name=x",
        b'{"name": ' + b"[" * 20_000,
        b'{"name": "\\ud800"}',
        b'{"name": "x", "description": "\\udc00"}',
        b'{"name": NaN}',
    ],
)
async def test_body_of_wrong_json_gets_400(meet: Meet, body: bytes) -> None:
    alice = meet("alice")
    headers = {"Content-Type": "application/json"}
    status, answer = await alice.call("POST", "/v1/chatrooms", data=body, headers=headers)
    assert (status, error_of(status, answer)["code"]) == (400, "VALIDATION")


async def test_truncated_character_gets_400(meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    for body in (b'{"message": "x\\ud83d"}', b'{"message": "x", "clientMessageId": "\\ude00"}'):
        headers = {"Content-Type": "application/json"}
        for path in (f"/v1/chatrooms/{room}/messages", "/v1/messages/direct"):
            whole = body if "chatrooms" in path else b'{"userId": "bob", ' + body[1:]
            status, answer = await alice.call("POST", path, data=whole, headers=headers)
            assert (status, error_of(status, answer)["code"]) == (400, "VALIDATION"), whole
    assert await seqs(alice, room) == []


@pytest.mark.parametrize("content_type", ["application/xml", "multipart/form-data; boundary=x", "text/html"])
async def test_wrong_content_type_gets_415(meet: Meet, content_type: str) -> None:
    options = {"data": b'{"name": "x"}', "headers": {"Content-Type": content_type}}
    status, body = await meet("alice").call("POST", "/v1/chatrooms", **options)
    assert (status, error_of(status, body)["code"]) == (415, "VALIDATION")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "no such encoding"])
async def test_compressed_body_gets_415(meet: Meet, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    status, body = await meet("alice").call("POST", "/v1/chatrooms", data=b'{"name": "x"}', headers=headers)
    assert (status, error_of(status, body)["code"]) == (415, "VALIDATION")


async def test_json_with_charset_is_accepted(meet: Meet) -> None:
    options = {"data": b'{"name": "x"}', "headers": {"Content-Type": "application/json; charset=utf-8"}}
    assert (await meet("alice").call("POST", "/v1/chatrooms", **options))[0] == 201


@pytest.mark.parametrize("chunked", [False, True])
async def test_huge_body_gets_413(meet: Meet, chunked: bool) -> None:
    body = b'{"name": "' + b"x" * 100_000 + b'"}'

    async def in_chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    options = {"data": in_chunks() if chunked else body, "headers": {"Content-Type": "application/json"}}
    status, answer = await meet("alice").call("POST", "/v1/chatrooms", **options)
    assert (status, error_of(status, answer)["code"]) == (413, "TOO_LARGE")


async def test_largest_body_is_accepted(meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    body = b'{"message": "' + b"x" * (65_536 - 15) + b'"}'
    assert len(body) == 65_536
    options = {"data": body, "headers": {"Content-Type": "application/json"}}
    assert (await alice.call("POST", f"/v1/chatrooms/{room}/messages", **options))[0] == 201
    assert [len(message["message"]) for message in await alice.data("GET", f"/v1/chatrooms/{room}/messages")] == [
        65_521
    ]


async def raw(url: str, request: bytes) -> tuple[int, str, bytes]:
    """Send raw bytes, and return the gateway's status, headers and body."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(5):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        writer.close()
        await writer.wait_closed()
    return int(head.split(b" ", 2)[1]), head.decode(), body


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /v1/chatrooms?q=" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "TOO_LARGE"),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "TOO_LARGE"),
        (b"GET /v1/chatrooms HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431, "TOO_LARGE"),
        (b"GET /v1/chatrooms HTTP/1.1\r\nHost: x\r\nExpect: bananas\r\n\r\n", 417, "VALIDATION"),
        (b"GET /v1/chatrooms HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", 400, "VALIDATION"),
        (b"POST /v1/chatrooms HTTP/1.1\r\nHost: x\r\nContent-Length: no\r\n\r\n", 400, "VALIDATION"),
        (b"nonsense\r\n\r\n", 400, "VALIDATION"),
        (b"GET /v1/live HTTP/1.1\r\nHost: x\r\n\r\n", 400, "VALIDATION"),
        (
            b"GET /v1/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            400,
            "VALIDATION",
        ),
        *(
            (
                b"GET /v1/live HTTP/1.1\r\nHost: x\r\nUpgrade: %s\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: %s\r\nSec-WebSocket-Key: %s\r\n\r\n" % words,
                400,
                "VALIDATION",
            )
            for words in (
                (b"websocket", b"13", b"dGhl\xd6HNhbXBsZSBub25jZQ=="),
                (b"websocket", b"\xff", b"dGhlIHNhbXBsZSBub25jZQ=="),
                (b"websocket\xff", b"13", b"dGhlIHNhbXBsZSBub25jZQ=="),
            )
        ),
    ],
)
async def test_broken_http_gets_failure_envelope(url: str, request_bytes: bytes, status: int, code: str) -> None:

    answer_status, head, body = await raw(url, request_bytes)
    assert (answer_status, error_of(answer_status, json.loads(body))["code"]) == (status, code)
    assert "application/json" in head
    assert b"Traceback" not in body


async def test_interrupted_body_is_not_logged_as_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    head = f"POST /v1/chatrooms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint('alice')}\r\n"
    head += "Content-Type: application/json\r\n"
    status, _, body = await raw(url, f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode())
    assert (status, error_of(status, json.loads(body))["code"]) == (400, "VALIDATION")
    host, _, port = url.removeprefix("http://").partition(":")
    answered = REGISTRY.get_sample_value("gateway_rest_seconds_count", CREATION_FAILED) or 0
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n{{".encode())
    assert b" 100 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.transport.abort()
    await until(lambda: (REGISTRY.get_sample_value("gateway_rest_seconds_count", CREATION_FAILED) or 0) > answered)
    assert "error" not in capsys.readouterr().out


async def test_content_of_broken_request_is_not_logged(
    url: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    token = mint("alice")
    for header in (f"Authorization: Bearer {token}{'x' * 20_000}", f"Authorization : Bearer {token}"):
        await raw(url, f"GET /v1/chatrooms HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
    out, err = capsys.readouterr()
    assert token[:20] not in caplog.text + out + err
