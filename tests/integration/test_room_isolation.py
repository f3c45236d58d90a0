"""Access to rooms, which do not exist for outsiders: every call and every frame that names a room.

The tables are the specification. A number is an HTTP status, a word the code of an error frame, `ok` any other answer,
44xx the code that the socket is closed with. The rows are tried from top to bottom on one room, `DELETE` on another.

    nobody    shows no token                      banned   was a member, and then barred from the whole system
    outsider  never had to do with the room       removed  was a member until the creator removed them
    left      was a member and left               invited  added by the creator
    member    is there since the room was made    admin    has the claim `role: admin`, and is not a member
    mod       is a member that the creator made moderator
    heir      is a member to whom the creator handed the room over
    former    is the creator, and has handed the room over
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
                 nobody banned outsider  removed   left      invited   member    creator   admin     mod       heir      former
GET room         401    403    200       200       200       200       200       200       200       200       200       200
GET messages     401    403    200       200       200       200       200       200       200       200       200       200
GET older        401    403    200       200       200       200       200       200       200       200       200       200
GET search       401    403    200       200       200       200       200       200       200       200       200       200
GET members      401    403    200       200       200       200       200       200       200       200       200       200
GET message      401    403    200       200       200       200       200       200       200       200       200       200
GET around       401    403    200       200       200       200       200       200       200       200       200       200
GET replies      401    403    200       200       200       200       200       200       200       200       200       200
GET reactions    401    403    200       200       200       200       200       200       200       200       200       200
GET pins         401    403    200       200       200       200       200       200       200       200       200       200
subscribe        4401   4403   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
subscribe since  4401   4403   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
chat:typing      4401   4403   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
POST read        401    403    403       403       403       200       200       200       403       200       200       200
chat:read        4401   4403   FORBIDDEN FORBIDDEN FORBIDDEN ok        ok        ok        FORBIDDEN ok        ok        ok
PUT room         401    403    403       403       403       403       403       200       200       403       200       403
PUT member       401    403    403       403       403       403       403       200       200       403       200       403
PUT moderator    401    403    403       403       403       403       403       200       200       403       200       403
PUT wrong role   401    403    400       400       400       400       400       400       400       400       400       400
DELETE member    401    403    403       403       403       403       403       200       200       403       200       403
POST message     401    403    201       201       201       201       201       201       201       201       201       201
chat:send        4401   4403   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
chat:react       4401   4403   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
PUT reaction     401    403    200       200       200       200       200       200       200       200       200       200
DELETE reaction  401    403    200       200       200       200       200       200       200       200       200       200
chat:edit        4401   4403   FORBIDDEN FORBIDDEN FORBIDDEN FORBIDDEN FORBIDDEN ok        FORBIDDEN FORBIDDEN FORBIDDEN ok
PATCH message    401    403    403       403       403       403       403       200       403       403       403       200
PUT pin          401    403    403       403       403       403       403       200       200       200       200       200
DELETE pin       401    403    403       403       403       403       403       200       200       200       200       200
DELETE theirs    401    403    403       403       403       403       403       200       200       200       200       403
chat:delete      4401   4403   FORBIDDEN FORBIDDEN FORBIDDEN FORBIDDEN FORBIDDEN ok        ok        FORBIDDEN ok        ok
DELETE message   401    403    403       403       403       403       403       200       200       403       200       200
POST leave       401    403    200       200       200       200       200       200       200       200       200       200
POST join        401    403    200       200       200       200       200       200       200       200       200       200
unsubscribe      4401   4403   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
PUT creator      401    403    403       403       403       403       403       200       200       403       403       403
DELETE room      401    403    403       403       403       403       403       200       200       403       200       403
"""

PRIVATE = """
                 nobody banned outsider  removed   left      invited   member    creator   admin     mod       heir      former
GET room         401    403    404       404       404       200       200       200       404       200       200       200
GET messages     401    403    404       404       404       200       200       200       404       200       200       200
GET older        401    403    404       404       404       200       200       200       404       200       200       200
GET search       401    403    404       404       404       200       200       200       404       200       200       200
GET members      401    403    404       404       404       200       200       200       404       200       200       200
GET message      401    403    404       404       404       200       200       200       404       200       200       200
GET around       401    403    404       404       404       200       200       200       404       200       200       200
GET replies      401    403    404       404       404       200       200       200       404       200       200       200
GET reactions    401    403    404       404       404       200       200       200       404       200       200       200
GET pins         401    403    404       404       404       200       200       200       404       200       200       200
subscribe        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok        ok        ok        NOT_FOUND ok        ok        ok
subscribe since  4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok        ok        ok        NOT_FOUND ok        ok        ok
chat:typing      4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok        ok        ok        NOT_FOUND ok        ok        ok
POST read        401    403    404       404       404       200       200       200       404       200       200       200
chat:read        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok        ok        ok        NOT_FOUND ok        ok        ok
PUT room         401    403    404       404       404       403       403       200       200       403       200       403
PUT member       401    403    404       404       404       403       403       200       200       403       200       403
PUT moderator    401    403    404       404       404       403       403       200       200       403       200       403
PUT wrong role   401    403    400       400       400       400       400       400       400       400       400       400
DELETE member    401    403    404       404       404       403       403       200       200       403       200       403
POST message     401    403    404       404       404       201       201       201       404       201       201       201
chat:send        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok        ok        ok        NOT_FOUND ok        ok        ok
chat:react       4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND ok        ok        ok        NOT_FOUND ok        ok        ok
PUT reaction     401    403    404       404       404       200       200       200       404       200       200       200
DELETE reaction  401    403    404       404       404       200       200       200       404       200       200       200
chat:edit        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND FORBIDDEN FORBIDDEN ok        NOT_FOUND FORBIDDEN FORBIDDEN ok
PATCH message    401    403    404       404       404       403       403       200       404       403       403       200
PUT pin          401    403    404       404       404       403       403       200       200       200       200       200
DELETE pin       401    403    404       404       404       403       403       200       200       200       200       200
DELETE theirs    401    403    404       404       404       403       403       200       200       200       200       403
chat:delete      4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND FORBIDDEN FORBIDDEN ok        ok        FORBIDDEN ok        ok
DELETE message   401    403    404       404       404       403       403       200       200       403       200       200
POST leave       401    403    404       404       200       200       200       200       404       200       200       200
POST join        401    403    404       404       200       200       200       200       404       200       200       200
unsubscribe      4401   4403   ok        ok        ok        ok        ok        ok        ok        ok        ok        ok
PUT creator      401    403    404       404       403       403       403       200       200       403       403       403
DELETE room      401    403    404       404       404       403       403       200       200       403       200       403
"""

# The creator wrote first to the member. Nobody manages a direct room, so an admin cannot either.
DIRECT = """
                 nobody banned outsider  member    creator   admin
GET room         401    403    404       200       200       404
GET messages     401    403    404       200       200       404
GET older        401    403    404       200       200       404
GET search       401    403    404       200       200       404
GET members      401    403    404       200       200       404
GET message      401    403    404       200       200       404
GET around       401    403    404       200       200       404
GET replies      401    403    404       200       200       404
GET reactions    401    403    404       200       200       404
GET pins         401    403    404       200       200       404
subscribe        4401   4403   NOT_FOUND ok        ok        NOT_FOUND
subscribe since  4401   4403   NOT_FOUND ok        ok        NOT_FOUND
chat:typing      4401   4403   NOT_FOUND ok        ok        NOT_FOUND
POST read        401    403    404       200       200       404
chat:read        4401   4403   NOT_FOUND ok        ok        NOT_FOUND
PUT room         401    403    404       403       403       404
PUT member       401    403    404       403       403       404
PUT moderator    401    403    404       403       403       404
PUT wrong role   401    403    400       400       400       400
DELETE member    401    403    404       403       403       404
POST message     401    403    404       201       201       404
chat:send        4401   4403   NOT_FOUND ok        ok        NOT_FOUND
chat:react       4401   4403   NOT_FOUND ok        ok        NOT_FOUND
PUT reaction     401    403    404       200       200       404
DELETE reaction  401    403    404       200       200       404
chat:edit        4401   4403   NOT_FOUND FORBIDDEN ok        NOT_FOUND
PATCH message    401    403    404       403       200       404
PUT pin          401    403    404       200       200       404
DELETE pin       401    403    404       200       200       404
DELETE theirs    401    403    404       200       403       404
chat:delete      4401   4403   NOT_FOUND FORBIDDEN ok        NOT_FOUND
DELETE message   401    403    404       403       200       404
POST leave       401    403    404       403       403       404
POST join        401    403    404       200       200       404
unsubscribe      4401   4403   ok        ok        ok        ok
PUT creator      401    403    404       403       403       404
DELETE room      401    403    404       403       403       404
"""

GONE = """
                 nobody banned outsider  removed   left      invited   member    creator   admin
GET room         401    403    404       404       404       404       404       404       404
GET messages     401    403    404       404       404       404       404       404       404
GET older        401    403    404       404       404       404       404       404       404
GET search       401    403    404       404       404       404       404       404       404
GET members      401    403    404       404       404       404       404       404       404
GET message      401    403    404       404       404       404       404       404       404
GET around       401    403    404       404       404       404       404       404       404
GET replies      401    403    404       404       404       404       404       404       404
GET reactions    401    403    404       404       404       404       404       404       404
GET pins         401    403    404       404       404       404       404       404       404
subscribe        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
subscribe since  4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
chat:typing      4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
POST read        401    403    404       404       404       404       404       404       404
chat:read        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
PUT room         401    403    404       404       404       404       404       404       404
PUT member       401    403    404       404       404       404       404       404       404
PUT moderator    401    403    404       404       404       404       404       404       404
PUT wrong role   401    403    400       400       400       400       400       400       400
DELETE member    401    403    404       404       404       404       404       404       404
POST message     401    403    404       404       404       404       404       404       404
chat:send        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
chat:react       4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
PUT reaction     401    403    404       404       404       404       404       404       404
DELETE reaction  401    403    404       404       404       404       404       404       404
chat:edit        4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
PATCH message    401    403    404       404       404       404       404       404       404
PUT pin          401    403    404       404       404       404       404       404       404
DELETE pin       401    403    404       404       404       404       404       404       404
DELETE theirs    401    403    404       404       404       404       404       404       404
chat:delete      4401   4403   NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND
DELETE message   401    403    404       404       404       404       404       404       404
POST leave       401    403    404       404       404       404       404       404       404
POST join        401    403    404       404       404       404       404       404       404
unsubscribe      4401   4403   ok        ok        ok        ok        ok        ok        ok
PUT creator      401    403    404       404       404       404       404       404       404
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

_MAKERS = {"creator", "former"}
_ROLES = {"mod": "moderator", "heir": "creator", "former": "creator"}
_clients = itertools.count(1)


def column(table: str, who: str) -> dict[str, str]:
    """Return the expected result of each call, for one kind of person."""
    head, *rows = [line for line in table.split("\n") if line]
    place = head.split().index(who)
    return {row[:17].rstrip(): row[17:].split()[place] for row in rows}


class Messages(NamedTuple):
    """The ids of the messages that calls name: one by the creator, one by the target."""

    mine: str
    theirs: str


def rest_calls(room: str, target: str, messages: Messages) -> dict[str, tuple[str, str, Any]]:
    """Return every REST call that names a room; `target` is a member if the room has one."""
    path = f"/v1/chatrooms/{room}"
    message = f"{path}/messages/{messages.mine}"
    return {
        "GET message": ("GET", message, None),
        "GET around": ("GET", f"{path}/messages?around=1", None),
        "GET replies": ("GET", f"{message}/replies", None),
        "GET reactions": ("GET", f"{message}/reactions", None),
        "GET pins": ("GET", f"{path}/pins", None),
        "PUT reaction": ("PUT", f"{message}/reactions/:up:", None),
        "DELETE reaction": ("DELETE", f"{message}/reactions/:up:", None),
        "PATCH message": ("PATCH", message, {"message": "another secret"}),
        "PUT pin": ("PUT", f"{path}/pins/{messages.mine}", None),
        "DELETE pin": ("DELETE", f"{path}/pins/{messages.mine}", None),
        "DELETE theirs": ("DELETE", f"{path}/messages/{messages.theirs}", None),
        "DELETE message": ("DELETE", message, None),
        "GET room": ("GET", path, None),
        "GET messages": ("GET", f"{path}/messages", None),
        "GET older": ("GET", f"{path}/messages?before=2&limit=1", None),
        "GET search": ("GET", f"{path}/messages/search?q=message", None),
        "GET members": ("GET", f"{path}/members", None),
        "POST read": ("POST", f"{path}/read", {"seq": 1}),
        "PUT room": ("PUT", path, {"description": "new"}),
        "PUT member": ("PUT", f"{path}/members/{target}", None),
        "PUT moderator": ("PUT", f"{path}/members/{target}", {"role": "moderator"}),
        "PUT wrong role": ("PUT", f"{path}/members/{target}", {"role": "owner"}),
        "PUT creator": ("PUT", f"{path}/members/{target}", {"role": "creator"}),
        "DELETE member": ("DELETE", f"{path}/members/{target}", None),
        "POST message": ("POST", f"{path}/messages", {"message": "m"}),
        "POST leave": ("POST", f"{path}/leave", None),
        "POST join": ("POST", f"{path}/join", None),
        "DELETE room": ("DELETE", path, None),
    }


def frames(room: str, messages: Messages) -> dict[str, dict[str, Any]]:
    """Return every frame that names a room."""
    channel = {"channel": "chatroom", "chatroomId": room}
    message = {"chatroomId": room, "messageId": messages.mine}
    return {
        "chat:react": {"type": "chat:react", **message, "emoji": ":up:"},
        "chat:edit": {"type": "chat:edit", **message, "message": "a changed secret"},
        "chat:delete": {"type": "chat:delete", **message},
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
        self.person = world.banned if who == "banned" else self.creator if who in _MAKERS else meet(who)
        self.messages = Messages("msg_never", "msg_nowhere")
        self.token = None if who == "nobody" else mint(self.person.id, role="admin" if who == "admin" else "user")

    async def room(self) -> str:
        """Create a room with a message of its creator, and one of the target."""
        if self.kind == "never":
            return new_id(Prefix.ROOM)
        if self.kind == "direct":
            return await self._direct_room()
        members = [self.target.id, *([self.person.id] if self.who == "member" else [])]
        room = await self.creator.create_room(type_=self.kind.split()[-1], memberIds=members)
        mine = await self.creator.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "secret"})
        theirs = await self.target.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "theirs"})
        self.messages = Messages(mine["id"], theirs["id"])
        if self.who in ("removed", "left", "invited", "banned"):
            await self.creator.data("PUT", f"/v1/chatrooms/{room}/members/{self.person.id}")
        if (role := _ROLES.get(self.who)) is not None:
            named = self.target if self.who == "former" else self.person
            await self.creator.data("PUT", f"/v1/chatrooms/{room}/members/{named.id}", json={"role": role})
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
        answer = await other.data("POST", "/v1/messages/direct", json={"userId": self.creator.id, "message": "theirs"})
        self.messages = Messages(sent["id"], answer["id"])
        return str(sent["chatroomId"])

    async def answers(self, http: aiohttp.ClientSession, calls: list[str]) -> dict[str, RawAnswer]:
        """Perform the calls in order, and return their results."""
        other, room = await self.room(), await self.room()
        socket = await RecordingSocket.open(http, self.world.url, self.token)
        found: dict[str, RawAnswer] = {}
        for call in calls:
            named = other if call == "DELETE room" and self.kind != "direct" else room
            if (frame := frames(named, self.messages).get(call)) is not None:
                if self.who in ("nobody", "banned"):  # the previous one has been closed
                    socket = await RecordingSocket.open(http, self.world.url, self.token)
                answer = await socket.ask(frame)
            else:
                method, path, body = rest_calls(named, self.target.id, self.messages)[call]
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
    none = Messages("", "")
    calls = {*rest_calls("", "", none), *frames("", none)}
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
