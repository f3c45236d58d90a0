"""Invitations, removals and roles over the wire: two gateways, chat_service, the real broker and database."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from prometheus_client import REGISTRY

from tests.support.infrastructure import Infrastructure
from tests.support.live_client import LiveClient
from tests.support.people import Meet, Person, people
from tests.support.queues import empty_queues
from tests.support.services import chat_service, gateway_alone
from tests.support.waiting import until


class TwoGateways:
    """A running system, and users whose sockets are on both gateways."""

    def __init__(self, first: str, second: str, stack: AsyncExitStack) -> None:
        self.urls = (first, second)
        self.meet: Meet = people(first)
        self._stack = stack

    async def sockets(self, person: Person) -> list[LiveClient]:
        """Open a socket on each gateway."""
        return [await self._stack.enter_async_context(await person.live(url)) for url in self.urls]


@pytest.fixture(scope="module")
async def gateways(infrastructure: Infrastructure) -> AsyncIterator[tuple[str, str]]:
    await empty_queues(infrastructure.amqp_url)
    async with (
        chat_service(infrastructure.amqp_url, infrastructure.mongodb_uri, "membership"),
        gateway_alone(infrastructure.amqp_url) as first,
        gateway_alone(infrastructure.amqp_url) as second,
    ):
        yield first, second


@pytest.fixture
async def world(gateways: tuple[str, str]) -> AsyncIterator[TwoGateways]:
    async with AsyncExitStack() as stack:
        yield TwoGateways(*gateways, stack)


async def subscribe(client: LiveClient, room: str) -> None:
    assert (await client.ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "subscribed"


def frames_about(client: LiveClient, *types: str) -> list[str]:
    return [frame["type"] for frame in client.frames if frame["type"] in types]


def unordered_lines() -> float:
    """Return the number of UNORDERED lines that the gateways of this process have received."""
    return REGISTRY.get_sample_value("gateway_deliveries_in_total", {"kind": "unordered"}) or 0.0


async def roles(person: Person, room: str) -> dict[str, str]:
    members = await person.data("GET", f"/v1/chatrooms/{room}/members")
    return {member["userId"]: member["role"] for member in members}


# Invited ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_creation", [True, False], ids=["memberIds", "PUT"])
async def test_every_socket_of_the_invited_is_notified_once(world: TwoGateways, at_creation: bool) -> None:
    alice, bob = world.meet("alice"), world.meet("bob")
    bobs, (own, _) = await world.sockets(bob), await world.sockets(alice)
    before = unordered_lines()
    invited = {"memberIds": [bob.id]} if at_creation else {}
    room = await alice.create_room(name="Gold", type_="private", **invited)
    for _ in range(2):  # the second time changes nothing
        await alice.data("PUT", f"/v1/chatrooms/{room}/members/{bob.id}")
    for client in bobs:
        data = await client.data("member:invited")
        assert data == {"chatroomId": room, "name": "Gold", "type": "private", "by": alice.id}
    await until(lambda: unordered_lines() >= before + 4)  # each gateway has received it again with the room's head
    for client in (*bobs, own):
        await client.barrier()
        assert frames_about(client, "member:invited") == []


# Removed ------------------------------------------------------------------------------------------------------------


async def test_every_socket_of_the_removed_is_notified_after_the_removal(world: TwoGateways) -> None:
    alice, bob = world.meet("alice"), world.meet("bob")
    room = await alice.create_room(type_="private", memberIds=[bob.id])
    subscribed, elsewhere = await world.sockets(bob), await world.sockets(bob)
    for client in subscribed:
        await subscribe(client, room)
    await alice.data("DELETE", f"/v1/chatrooms/{room}/members/{bob.id}")
    await alice.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "among us"})
    told = {"channel": "chatroom", "chatroomId": room, "reason": "removed"}
    for client in (*subscribed, *elsewhere):
        assert await client.data("unsubscribed") == told
        shown = ["member:left"] if client in subscribed else []
        assert frames_about(client, "member:left", "chat:message", "unsubscribed") == shown


async def test_member_who_leaves_is_not_notified(world: TwoGateways) -> None:
    alice, bob = world.meet("alice"), world.meet("bob")
    room = await alice.create_room(type_="private", memberIds=[bob.id])
    client, _ = await world.sockets(bob)
    await subscribe(client, room)
    await bob.data("POST", f"/v1/chatrooms/{room}/leave")
    await client.data("member:left")
    await client.barrier()
    assert frames_about(client, "unsubscribed") == []


async def test_removed_user_who_is_invited_again_subscribes_again(world: TwoGateways) -> None:
    alice, bob = world.meet("alice"), world.meet("bob")
    room = await alice.create_room(type_="private", memberIds=[bob.id])
    client, _ = await world.sockets(bob)
    for _ in range(3):
        await subscribe(client, room)
        await alice.data("DELETE", f"/v1/chatrooms/{room}/members/{bob.id}")
        await client.data("unsubscribed")
        await alice.data("PUT", f"/v1/chatrooms/{room}/members/{bob.id}")
    await subscribe(client, room)
    sent = await alice.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "welcome back"})
    assert (await client.data("chat:message"))["messageId"] == sent["id"]


async def test_subscriber_of_a_room_that_becomes_private_is_notified(world: TwoGateways) -> None:
    alice, bob, stranger = world.meet("alice"), world.meet("bob"), world.meet("stranger")
    room = await alice.create_room(memberIds=[bob.id])
    (member, _), (outsider, idle) = await world.sockets(bob), await world.sockets(stranger)
    for client in (member, outsider):
        await subscribe(client, room)
    await alice.data("PUT", f"/v1/chatrooms/{room}", json={"type": "private"})
    assert await outsider.data("unsubscribed") == {"channel": "chatroom", "chatroomId": room, "reason": "removed"}
    assert (await member.data("chatroom:updated"))["type"] == "private"
    for client in (outsider, idle, member):
        await client.barrier()
    assert frames_about(outsider, "chatroom:updated") == []
    assert frames_about(idle, "unsubscribed") == frames_about(member, "unsubscribed") == []


async def test_subscriber_of_a_deleted_room_is_notified_after_the_deletion(world: TwoGateways) -> None:
    alice = world.meet("alice")
    room = await alice.create_room()
    client, idle = await world.sockets(alice)
    await subscribe(client, room)
    await alice.data("DELETE", f"/v1/chatrooms/{room}")
    assert await client.data("unsubscribed") == {"channel": "chatroom", "chatroomId": room, "reason": "deleted"}
    assert frames_about(client, "chatroom:deleted") == ["chatroom:deleted"], "it came first"
    await idle.barrier()
    assert frames_about(idle, "chatroom:deleted", "unsubscribed") == []


async def test_requested_unsubscription_has_no_reason(world: TwoGateways) -> None:
    alice = world.meet("alice")
    room = await alice.create_room()
    client, _ = await world.sockets(alice)
    await subscribe(client, room)
    answer = await client.ask("unsubscribe", channel="chatroom", chatroomId=room)
    assert answer["data"] == {"channel": "chatroom", "chatroomId": room}


# Roles --------------------------------------------------------------------------------------------------------------


async def test_roles_are_given_handed_over_and_inherited(world: TwoGateways) -> None:
    alice, bob, cat, dan = (world.meet(name) for name in ("alice", "bob", "cat", "dan"))
    room = await alice.create_room(type_="private", memberIds=[bob.id, cat.id])
    client, _ = await world.sockets(bob)
    await subscribe(client, room)
    path = f"/v1/chatrooms/{room}/members"
    for named, role in ((cat, "moderator"), (bob, "moderator"), (dan, "moderator")):
        member = await alice.data("PUT", f"{path}/{named.id}", json={"role": role})
        assert (member["userId"], member["role"]) == (named.id, role)
    await alice.data("PUT", f"{path}/{bob.id}", json={"role": "creator"})
    shown = await roles(bob, room)
    assert shown == {alice.id: "moderator", bob.id: "creator", cat.id: "moderator", dan.id: "moderator"}
    status, _ = await alice.call("PUT", f"/v1/chatrooms/{room}", json={"description": "mine"})
    assert status == 403
    await bob.data("POST", f"/v1/chatrooms/{room}/leave")
    assert (await roles(cat, room))[cat.id] == "creator", "the moderator for the longest time"
    await client.data("member:left")
    frames = frames_about(client, "member:joined", "member:left", "chatroom:updated")
    assert frames == ["member:joined"], "roles alone make no frame"
    assert (await cat.data("GET", f"/v1/chatrooms/{room}"))["createdBy"] == alice.id


@pytest.mark.parametrize(
    "role",
    ["owner", "Moderator", "", 5, ["member"]],
)
async def test_wrong_role_is_named_and_changes_nothing(world: TwoGateways, role: object) -> None:
    alice, bob = world.meet("alice"), world.meet("bob")
    room = await alice.create_room(type_="private")
    status, answer = await alice.call("PUT", f"/v1/chatrooms/{room}/members/{bob.id}", json={"role": role})
    assert (status, answer["error"]["code"]) == (400, "VALIDATION")
    assert [detail["field"] for detail in answer["error"]["details"]] == ["role"]
    assert list(await roles(alice, room)) == [alice.id]


async def test_creator_gets_no_other_role(world: TwoGateways) -> None:
    alice = world.meet("alice")
    room = await alice.create_room()
    status, answer = await alice.call("PUT", f"/v1/chatrooms/{room}/members/{alice.id}", json={"role": "member"})
    assert (status, answer["error"]["details"][0]["field"]) == (400, "role")
    await alice.data("PUT", f"/v1/chatrooms/{room}/members/{alice.id}", json={"role": "creator"})


@pytest.mark.parametrize("body", [None, b"", b"{}"])
async def test_without_a_role_a_member_keeps_theirs(world: TwoGateways, body: bytes | None) -> None:
    alice, bob = world.meet("alice"), world.meet("bob")
    room = await alice.create_room(memberIds=[bob.id])
    path = f"/v1/chatrooms/{room}/members/{bob.id}"
    await alice.data("PUT", path, json={"role": "moderator"})
    headers = {"Content-Type": "application/json"}
    assert (await alice.data("PUT", path, data=body, headers=headers))["role"] == "moderator"


async def test_successor_is_found_among_more_members_than_are_in_memory(world: TwoGateways) -> None:
    admin = world.meet("root", role="admin")
    alice, *others = [world.meet(f"user{number}") for number in range(6)]
    room = await alice.create_room(type_="group", memberIds=[other.id for other in others])
    later = world.meet("later")
    await admin.data("PUT", f"/v1/chatrooms/{room}/members/{later.id}", json={"role": "moderator"})
    creator = alice
    for heir in (later, *sorted(others, key=lambda person: person.id)):  # who joined in the same entry
        await admin.data("DELETE", f"/v1/chatrooms/{room}/members/{creator.id}")
        assert (await roles(heir, room))[heir.id] == "creator"
        creator = heir
