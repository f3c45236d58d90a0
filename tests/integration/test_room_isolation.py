"""Access to rooms, which do not exist for outsiders: every call and every frame that names a room.

The tables are the specification. A number is an HTTP status, a word the code of an error frame, `ok` any other answer,
44xx the code that the socket is closed with. The rows are tried from top to bottom on one room, `DELETE` on another.

    nobody    shows no token                      banned   was a member, and then barred from the whole system
    outsider  never had to do with the room       removed  was a member until the creator removed them
    left      was a member and left               invited  added by the creator
    member    is there since the room was made    admin    has the claim `role: admin`, and is no member
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import pytest

from shared.ids import Prefix, direct_room_id, new_id
from tests.support.events import cloud_event, publish
from tests.support.infrastructure import Infrastructure
from tests.support.people import Meet, Person, people
from tests.support.queues import empty_queues
from tests.support.raw_answers import RawAnswer, RecordingSocket, rest
from tests.support.services import chat_service, gateway, notifier
from tests.support.tokens import mint
from tests.support.waiting import until_async

PUBLIC = """
                 nobody banned outsider  removed   left      invited member    creator admin
GET room         401    403    200       200       200       200     200       200     200
GET messages     401    403    200       200       200       200     200       200     200
GET older        401    403    200       200       200       200     200       200     200
GET search       401    403    200       200       200       200     200       200     200
GET members      401    403    200       200       200       200     200       200     200
subscribe        4401   4403   ok        ok        ok        ok      ok        ok      ok
subscribe since  4401   4403   ok        ok        ok        ok      ok        ok      ok
chat:typing      4401   4403   ok        ok        ok        ok      ok        ok      ok
POST read        401    403    403       403       403       200     200       200     403
chat:read        4401   4403   FORBIDDEN FORBIDDEN FORBIDDEN ok      ok        ok      FORBIDDEN
PUT room         401    403    403       403       403       403     403       200     200
PUT member       401    403    403       403       403       403     403       200     200
DELETE member    401    403    403       403       403       403     403       200     200
POST message     401    403    201       201       201       201     201       201     201
chat:send        4401   4403   ok        ok        ok        ok      ok        ok      ok
POST leave       401    403    200       200       200       200     200       200     200
POST join        401    403    200       200       200       200     200       200     200
unsubscribe      4401   4403   ok        ok        ok        ok      ok        ok      ok
DELETE room      401    403    403       403       403       403     403       200     200
"""

PRIVATE = """
                 nobody banned outsider  removed   left      invited member creator admin
GET room         401    403    404       404       404       200     200    200     404
GET messages     401    403    404       404       404       200     200    200     404
GET older        401    403    404       404       404       200     200    200     404
GET search       401    403    404       404       404       200     200    200     404
GET members      401    403    404       404       404       200     200    200     404
subscribe        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok      ok     ok      NOT_FOUND
subscribe since  4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok      ok     ok      NOT_FOUND
chat:typing      4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok      ok     ok      NOT_FOUND
POST read        401    403    404       404       404       200     200    200     404
chat:read        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok      ok     ok      NOT_FOUND
PUT room         401    403    404       404       404       403     403    200     200
PUT member       401    403    404       404       404       403     403    200     200
DELETE member    401    403    404       404       404       403     403    200     200
POST message     401    403    404       404       404       201     201    201     404
chat:send        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok      ok     ok      NOT_FOUND
POST leave       401    403    404       404       200       200     200    200     404
POST join        401    403    404       404       200       200     200    200     404
unsubscribe      4401   4403   ok        ok        ok        ok      ok     ok      ok
DELETE room      401    403    404       404       404       403     403    200     200
"""

# The creator wrote first to the member. Nobody manages a direct room, so an admin cannot either.
DIRECT = """
                 nobody banned outsider  member    creator   admin
GET room         401    403    404       200       200       404
GET messages     401    403    404       200       200       404
GET older        401    403    404       200       200       404
GET search       401    403    404       200       200       404
GET members      401    403    404       200       200       404
subscribe        4401   4403   NOT_FOUND ok        ok        NOT_FOUND
subscribe since  4401   4403   NOT_FOUND ok        ok        NOT_FOUND
chat:typing      4401   4403   NOT_FOUND ok        ok        NOT_FOUND
POST read        401    403    404       200       200       404
chat:read        4401   4403   NOT_FOUND ok        ok        NOT_FOUND
PUT room         401    403    404       403       403       404
PUT member       401    403    404       403       403       404
DELETE member    401    403    404       403       403       404
POST message     401    403    404       201       201       404
chat:send        4401   4403   NOT_FOUND ok        ok        NOT_FOUND
POST leave       401    403    404       403       403       404
POST join        401    403    404       200       200       404
unsubscribe      4401   4403   ok        ok        ok        ok
DELETE room      401    403    404       403       403       404
"""

GONE = """
                 nobody banned outsider  removed   left      invited   member    creator   admin
GET room         401    403    404       404       404       404       404       404       404
GET messages     401    403    404       404       404       404       404       404       404
GET older        401    403    404       404       404       404       404       404       404
GET search       401    403    404       404       404       404       404       404       404
GET members      401    403    404       404       404       404       404       404       404
subscribe        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
subscribe since  4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
chat:typing      4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
POST read        401    403    404       404       404       404       404       404       404
chat:read        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
PUT room         401    403    404       404       404       404       404       404       404
PUT member       401    403    404       404       404       404       404       404       404
DELETE member    401    403    404       404       404       404       404       404       404
POST message     401    403    404       404       404       404       404       404       404
chat:send        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
POST leave       401    403    404       404       404       404       404       404       404
POST join        401    403    404       404       404       404       404       404       404
unsubscribe      4401   4403   ok        ok        ok        ok        ok        ok        ok
DELETE room      401    403    404       404       404       404       404       404       404
"""

TABLES = {
    "public": PUBLIC,
    "private": PRIVATE,
    "group": PRIVATE,
    "direct": DIRECT,
    "deleted public": GONE,
    "deleted private": GONE,
    "never": GONE,
}
CELLS = [(kind, who) for kind, table in TABLES.items() for who in table.split("\n")[1].split()]
HIDDEN = {"404", "NOT_FOUND"}

_clients = itertools.count(1)


def column(table: str, who: str) -> dict[str, str]:
    """Return the expected result of each call, for one kind of person."""
    head, *rows = [line for line in table.split("\n") if line]
    place = head.split().index(who)
    return {row[:17].rstrip(): row[17:].split()[place] for row in rows}


def rest_calls(room: str, target: str) -> dict[str, tuple[str, str, Any]]:
    """Return every REST call that names a room; `target` is a member if the room has one."""
    path = f"/v1/chatrooms/{room}"
    return {
        "GET room": ("GET", path, None),
        "GET messages": ("GET", f"{path}/messages", None),
        "GET older": ("GET", f"{path}/messages?before=2&limit=1", None),
        "GET search": ("GET", f"{path}/messages/search?q=message", None),
        "GET members": ("GET", f"{path}/members", None),
        "POST read": ("POST", f"{path}/read", {"seq": 1}),
        "PUT room": ("PUT", path, {"description": "new"}),
        "PUT member": ("PUT", f"{path}/members/{target}", None),
        "DELETE member": ("DELETE", f"{path}/members/{target}", None),
        "POST message": ("POST", f"{path}/messages", {"message": "m"}),
        "POST leave": ("POST", f"{path}/leave", None),
        "POST join": ("POST", f"{path}/join", None),
        "DELETE room": ("DELETE", path, None),
    }


def frames(room: str) -> dict[str, dict[str, Any]]:
    """Return every frame that names a room."""
    channel = {"channel": "chatroom", "chatroomId": room}
    return {
        "subscribe": {"type": "subscribe", **channel},
        "subscribe since": {"type": "subscribe", **channel, "since": 0},
        "unsubscribe": {"type": "unsubscribe", **channel},
        "chat:send": {"type": "chat:send", "chatroomId": room, "message": "m", "clientMessageId": f"c{next(_clients)}"},
        "chat:typing": {"type": "chat:typing", "chatroomId": room, "isTyping": True},
        "chat:read": {"type": "chat:read", "chatroomId": room, "seq": 1},
    }


class IsolationWorld(NamedTuple):
    """A running system, and one user who is banned from it."""

    url: str
    banned: Person


@pytest.fixture(scope="module")
async def world(infrastructure: Infrastructure) -> AsyncIterator[IsolationWorld]:
    await empty_queues(infrastructure.amqp_url)
    system = infrastructure.amqp_url, infrastructure.mongodb_uri, new_id(Prefix.COMMAND)
    async with chat_service(*system), notifier(*system), gateway(infrastructure.amqp_url) as url:
        banned = people(url)("banned")
        event = cloud_event(f"ban-{banned.id}", "user.banned", {"userId": banned.id})
        await publish(infrastructure.amqp_url, "user.banned", event)
        await until_async(lambda: banned.call("GET", "/v1/chatrooms"), lambda answer: answer[0] == 403)
        yield IsolationWorld(url, banned)


class Scene:
    """Create a room of one kind, and give a person one kind of relation to it."""

    def __init__(self, world: IsolationWorld, meet: Meet, kind: str, who: str) -> None:
        self.world = world
        self.kind = kind
        self.who = who
        self.creator = meet("creator")
        self.target = meet("target")
        self.person = world.banned if who == "banned" else self.creator if who == "creator" else meet(who)
        self.token = None if who == "nobody" else mint(self.person.id, role="admin" if who == "admin" else "user")

    async def room(self) -> str:
        """Create a room with one message."""
        if self.kind == "never":
            return new_id(Prefix.ROOM)
        if self.kind == "direct":
            return await self._direct_room()
        members = [self.target.id, *([self.person.id] if self.who == "member" else [])]
        room = await self.creator.create_room(type_=self.kind.split()[-1], memberIds=members)
        await self.creator.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "secret"})
        if self.who in ("removed", "left", "invited", "banned"):
            await self.creator.data("PUT", f"/v1/chatrooms/{room}/members/{self.person.id}")
        if self.who == "removed":
            await self.creator.data("DELETE", f"/v1/chatrooms/{room}/members/{self.person.id}")
        if self.who == "left":
            await self.person.data("POST", f"/v1/chatrooms/{room}/leave")
        if self.kind.startswith("deleted"):
            await self.creator.data("DELETE", f"/v1/chatrooms/{room}")
        return room

    async def _direct_room(self) -> str:
        other = self.person if self.who == "member" else self.target
        sent = await self.creator.data("POST", "/v1/messages/direct", json={"userId": other.id, "message": "secret"})
        assert sent["chatroomId"] == direct_room_id(self.creator.id, other.id)
        return str(sent["chatroomId"])

    async def answers(self, http: aiohttp.ClientSession, calls: list[str]) -> dict[str, RawAnswer]:
        """Perform the calls in order, and return their results."""
        room, other = await self.room(), await self.room()
        socket = await RecordingSocket.open(http, self.world.url, self.token)
        found: dict[str, RawAnswer] = {}
        for call in calls:
            named = other if call == "DELETE room" and self.kind != "direct" else room
            if (frame := frames(named).get(call)) is not None:
                if self.who in ("nobody", "banned"):  # the previous one has been closed
                    socket = await RecordingSocket.open(http, self.world.url, self.token)
                answer = await socket.ask(frame)
            else:
                method, path, body = rest_calls(named, self.target.id)[call]
                answer = await rest(http, self.token, method, f"{self.world.url}{path}", body)
            found[call] = answer.without(named)
        return found


@pytest.mark.parametrize(("kind", "who"), CELLS)
async def test_calls_and_frames_answer_as_the_table_says(world: IsolationWorld, kind: str, who: str) -> None:
    expected = column(TABLES[kind], who)
    scene = Scene(world, people(world.url), kind, who)
    async with aiohttp.ClientSession() as http:
        found = await scene.answers(http, list(expected))
        assert {call: answer.outcome for call, answer in found.items()} == expected
        hidden = [call for call in expected if expected[call] in HIDDEN]
        scene.kind = "never"
        never = await scene.answers(http, hidden)
    assert {call: found[call] for call in hidden} == never, "the answer tells this room from one that never was"


def test_tables_name_every_call_and_frame_that_names_a_room() -> None:
    calls = {*rest_calls("", ""), *frames("")}
    for table in TABLES.values():
        assert set(column(table, "nobody")) == calls


async def test_subscriptions_in_auth_reveal_no_more_than_single_ones(world: IsolationWorld) -> None:
    scene = Scene(world, people(world.url), "private", "outsider")
    rooms = [await scene.room(), new_id(Prefix.ROOM)]
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(f"{world.url}/v1/live")
        entries = [{"channel": "chatroom", "chatroomId": room, "since": 0, "id": "asked"} for room in rooms]
        await ws.send_json({"type": "auth", "token": scene.token, "subscriptions": entries})
        async with asyncio.timeout(10):
            first, *answers = [await ws.receive_str() for _ in range(3)]
    assert '"auth:ok"' in first
    assert '"NOT_FOUND"' in answers[0]
    assert answers[0] == answers[1]
