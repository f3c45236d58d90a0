"""The rates and bounds of users over REST and sockets, with the contract's defaults where a flow can reach them."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from chat_service.settings import ChatSettings
from gateway.settings import GatewaySettings
from tests.support.database_proxy import DatabaseProxy, DelayReply, RefuseCommand, database_proxy
from tests.support.limits import default_limits
from tests.support.live_client import LiveClient, RestClient
from tests.support.service_process import service_processes
from tests.support.services import chat_service, gateway_alone
from tests.support.tokens import mint

ROOM = {"name": "Room", "type": "public"}
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


class Limited:
    """A system with one gateway and two chat_services, and the settings of its limits."""

    def __init__(self, url: str) -> None:
        self.url = url

    def rest(self, user: str, **claims: Any) -> RestClient:
        return RestClient(self.url, user, **claims)

    async def socket(self, user: str, **claims: Any) -> LiveClient:
        return await LiveClient.as_user(self.url, user, **claims)


@pytest.fixture
async def limits(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the limits that differ from the defaults; tests set them with `indirect`."""
    return dict(getattr(request, "param", {}))


@pytest.fixture
async def system(amqp_url: str, mongodb_uri: str, database_name: str, limits: dict[str, Any]) -> AsyncIterator[Limited]:
    chat = default_limits(ChatSettings) | {key: value for key, value in limits.items() if key in OF_CHAT}
    own = default_limits(GatewaySettings) | {key: value for key, value in limits.items() if key not in OF_CHAT}
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(chat_service(amqp_url, mongodb_uri, database_name, **chat))
        yield Limited(await stack.enter_async_context(gateway_alone(amqp_url, **own)))


OF_CHAT = default_limits(ChatSettings).keys()


@asynccontextmanager
async def behind_proxy(
    amqp_url: str, mongodb_uri: str, database_name: str, **limits: int
) -> AsyncIterator[tuple[str, DatabaseProxy]]:
    """Run a gateway, and a chat_service as a process of its own: at its end, it waits for threads that read the proxy.

    Yields the gateway's URL and the proxy of the service's database.
    """
    async with database_proxy(mongodb_uri) as proxy:
        environment = {
            "AMQP_URL": amqp_url,
            "MONGODB_URI": proxy.uri,
            "MONGODB_DATABASE": database_name,
            "ADMIN_HOST": "127.0.0.1",
            **{name.upper(): str(value) for name, value in (default_limits(ChatSettings) | limits).items()},
        }
        async with service_processes("chat_service", environment) as [service], gateway_alone(amqp_url) as url:
            await service.ready()
            yield url, proxy


def refusal_of(status: int, body: Any) -> tuple[int, str, int]:
    """Return status, code and `retryAfterMs` of a refused call."""
    return status, body["error"]["code"], body["error"].get("retryAfterMs", 0)


async def test_one_user_cannot_make_a_thousand_users_members_of_hundreds_of_rooms(system: Limited) -> None:
    """Twenty calls did: 420 rooms for each of 1,000 users, without anybody's consent."""
    ann = system.rest("ann")
    crowd = [f"user_{number}" for number in range(1000)]
    for _ in range(20):
        status, body = await ann.call("POST", "/v1/chatrooms", json={**ROOM, "type": "group", "memberIds": crowd})
        assert refusal_of(status, body) == (429, "RATE_LIMITED", HOUR_MS)
    invited = 0
    for number in itertools.count():
        members = crowd[number * 30 : number * 30 + 30]
        status, body = await ann.call("POST", "/v1/chatrooms", json={**ROOM, "type": "group", "memberIds": members})
        if status != 201:
            break
        invited += len(members)
    assert invited == 90
    room = await ann.create_room()
    for user in crowd[:10]:
        await ann.data("PUT", f"/v1/chatrooms/{room}/members/{user}")
    refused = await ann.call("PUT", f"/v1/chatrooms/{room}/members/user_999")
    status, code, retry_ms = refusal_of(*refused)
    assert (status, code) == (429, "RATE_LIMITED")
    assert 0 < retry_ms <= HOUR_MS
    await ann.data("PUT", f"/v1/chatrooms/{room}/members/{crowd[0]}")  # already in effect: free


async def test_more_members_than_an_hour_allows_are_refused_for_an_hour(system: Limited) -> None:
    """A smaller crowd may be invited at once; a service may invite them all."""
    crowd = {**ROOM, "memberIds": [f"user_{number}" for number in range(101)]}
    async with aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {mint('ann')}"}
        async with http.post(f"{system.url}/v1/chatrooms", json=crowd, headers=headers) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (429, "RATE_LIMITED")
            assert "RATE_INVITATIONS_PER_HOUR: 101 invitations at once, and an hour allows 100" in error["message"]
            assert (error["retryAfterMs"], response.headers["Retry-After"]) == (HOUR_MS, "3600")
    ann = system.rest("ann")
    assert (await ann.call("POST", "/v1/chatrooms", json={**crowd, "memberIds": crowd["memberIds"][:100]}))[0] == 201
    service = system.rest("feed", role="service")
    assert (await service.data("POST", "/v1/chatrooms", json=crowd))["memberCount"] == 102


async def test_eleventh_room_of_an_hour_is_refused_on_any_replica(system: Limited) -> None:
    ann = system.rest("ann")
    answers = await asyncio.gather(*(ann.call("POST", "/v1/chatrooms", json=ROOM) for _ in range(30)))
    assert sorted(status for status, _ in answers) == [201] * 10 + [429] * 20
    assert all(0 < refusal_of(*answer)[2] <= HOUR_MS for answer in answers if answer[0] == 429)
    assert (await system.rest("ben").call("POST", "/v1/chatrooms", json=ROOM))[0] == 201
    for claims in ({"role": "admin"}, {"role": "service"}):
        exempt = system.rest("exempt", **claims)
        answers = await asyncio.gather(*(exempt.call("POST", "/v1/chatrooms", json=ROOM) for _ in range(15)))
        assert {status for status, _ in answers} == {201}


@pytest.mark.parametrize("limits", [{"rate_joins_per_minute": 4}], indirect=True)
async def test_joins_leaves_and_first_messages_share_a_rate(system: Limited) -> None:
    rooms = [await system.rest("owner").create_room() for _ in range(4)]
    ann = system.rest("ann")
    async with await system.socket("ann") as socket:
        await ann.data("POST", f"/v1/chatrooms/{rooms[0]}/join")
        await ann.data("POST", f"/v1/chatrooms/{rooms[0]}/join")  # already in effect: free
        await ann.data("POST", f"/v1/chatrooms/{rooms[0]}/leave")
        await ann.data("POST", f"/v1/chatrooms/{rooms[0]}/leave")
        assert (await ann.call("POST", "/v1/chatrooms/room_unknown/join"))[0] == 404
        first = await socket.ask("chat:send", chatroomId=rooms[1], message="joins", clientMessageId="c1")
        assert first["type"] == "chat:ack"
        status, code, retry_ms = refusal_of(*await ann.call("POST", f"/v1/chatrooms/{rooms[2]}/join"))
        assert (status, code) == (429, "RATE_LIMITED")
        assert 0 < retry_ms <= MINUTE_MS
        refused = await socket.ask("chat:send", chatroomId=rooms[2], message="would join")
        assert (refused["data"]["code"], refused["data"]["retryable"]) == ("RATE_LIMITED", True)
        assert 0 < refused["data"]["retryAfterMs"] <= MINUTE_MS
        assert (await socket.ask("chat:send", chatroomId=rooms[1], message="a member's"))["type"] == "chat:ack"
        again = await socket.ask("chat:send", chatroomId=rooms[1], message="joins", clientMessageId="c1")
        assert again["data"]["messageId"] == first["data"]["messageId"]


@pytest.mark.parametrize("limits", [{"rate_stranger_messages_per_hour": 2}], indirect=True)
async def test_messages_to_strangers_are_limited_and_others_are_not(system: Limited) -> None:
    ann = system.rest("ann")
    for kind in ("private", "group"):
        await ann.create_room(type_=kind, memberIds=[f"{kind}_friend"])
    await ann.create_room(memberIds=["of_public_room"])

    async def write(user: str) -> tuple[int, Any]:
        return await ann.call("POST", "/v1/messages/direct", json={"userId": user, "message": "hi"})

    assert (await write("first"))[0] == (await write("of_public_room"))[0] == 201
    status, code, retry_ms = refusal_of(*await write("third"))
    assert (status, code) == (429, "RATE_LIMITED")
    assert 0 < retry_ms <= HOUR_MS
    for known in ("first", "private_friend", "group_friend"):
        assert (await write(known))[0] == 201
    async with await system.socket("ann") as socket:
        refused = await socket.ask("chat:direct", userId="third", message="hi")
        assert refused["data"]["code"] == "RATE_LIMITED"
    answered = await system.rest("third").call("POST", "/v1/messages/direct", json={"userId": "ann", "message": "hi"})
    assert answered[0] == 201
    assert (await write("third"))[0] == 201, "they have a direct room now"
    admin = system.rest("boss", role="admin")
    for number in range(5):
        json = {"userId": f"somebody_{number}", "message": "hi"}
        assert (await admin.call("POST", "/v1/messages/direct", json=json))[0] == 201


async def test_user_beyond_the_rate_of_messages_causes_no_look_up_of_common_rooms(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    limits = {"rate_limit_messages_per_minute": 4, "rate_stranger_messages_per_hour": 1}
    async with (
        behind_proxy(amqp_url, mongodb_uri, database_name, **limits) as (url, proxy),
        await LiveClient.as_user(url, "ann") as socket,
    ):
        looked_up = proxy.inject(
            DelayReply(0), "find", collection="room_members", where=lambda one: "userId" in one.document["filter"]
        )
        asking = (socket.ask("chat:direct", userId=f"stranger_{number}", message="hi") for number in range(12))
        answers = await asyncio.gather(*asking)
        assert Counter(answer["type"] for answer in answers) == {"chat:ack": 1, "error": 11}
        reasons = Counter(answer["data"]["message"] for answer in answers if answer["type"] == "error")
        assert reasons == {
            "too many direct messages to users without a common room": 3,
            "too many messages": 8,
        }
        assert len(looked_up.hits) == 2 * 4, "one read of each user's rooms for each message within the rate"


@pytest.mark.parametrize("limits", [{"rooms_created_max": 2, "rooms_joined_max": 4}], indirect=True)
async def test_bounds_on_rooms_are_named_and_direct_rooms_are_apart(system: Limited) -> None:
    ann, owner = system.rest("ann"), [system.rest(f"owner_{number}") for number in range(3)]
    for number in range(6):
        await ann.data("POST", "/v1/messages/direct", json={"userId": f"friend_{number}", "message": "hi"})
    made = [await ann.create_room() for _ in range(2)]
    await _forbidden(ann.call("POST", "/v1/chatrooms", json=ROOM), "ROOMS_CREATED_MAX")
    await ann.data("DELETE", f"/v1/chatrooms/{made[0]}")
    await ann.create_room()
    others = [await one.create_room() for one in owner]
    for room in others[:2]:
        await ann.data("POST", f"/v1/chatrooms/{room}/join")
    await _forbidden(ann.call("POST", f"/v1/chatrooms/{others[2]}/join"), "ROOMS_JOINED_MAX")
    await _forbidden(owner[2].call("PUT", f"/v1/chatrooms/{others[2]}/members/ann"), "ROOMS_JOINED_MAX")
    await _forbidden(owner[2].call("POST", "/v1/chatrooms", json={**ROOM, "memberIds": ["ann"]}), "ROOMS_JOINED_MAX")
    async with await system.socket("ann") as socket:
        refused = await socket.ask("chat:send", chatroomId=others[2], message="would join")
        assert refused["data"]["code"] == "FORBIDDEN"
        assert "ROOMS_JOINED_MAX" in refused["data"]["message"]
    await ann.data("POST", f"/v1/chatrooms/{others[0]}/leave")
    await ann.data("POST", f"/v1/chatrooms/{others[2]}/join")


@pytest.mark.parametrize(
    "limits",
    [{"rooms_created_max": 5, "rooms_joined_max": 8, "rate_room_creations_per_hour": 1000}],
    indirect=True,
)
async def test_bounds_are_exact_for_calls_at_the_same_moment(system: Limited) -> None:
    """The rooms are in many partitions of two replicas, and no partition sees another's commands."""
    ann, owner = system.rest("ann"), system.rest("owner", role="admin")
    answers = await asyncio.gather(*(ann.call("POST", "/v1/chatrooms", json=ROOM) for _ in range(25)))
    assert sorted(status for status, _ in answers) == [201] * 5 + [403] * 20
    rooms = [await system.rest(f"owner_{number}").create_room() for number in range(20)]
    joins = [ann.call("POST", f"/v1/chatrooms/{room}/join") for room in rooms]
    assert sorted([status for status, _ in await asyncio.gather(*joins)]) == [200] * 3 + [403] * 17
    invitations = [owner.call("PUT", f"/v1/chatrooms/{room}/members/ben") for room in rooms]
    assert sorted([status for status, _ in await asyncio.gather(*invitations)]) == [200] * 8 + [403] * 12
    answers = await asyncio.gather(*(ann.call("POST", "/v1/chatrooms", json=ROOM) for _ in range(5)))
    assert {status for status, _ in answers} == {403}, "the refused ones reserve nothing"


async def test_creation_that_the_service_fails_costs_nothing(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with behind_proxy(amqp_url, mongodb_uri, database_name, rate_room_creations_per_hour=2) as (url, proxy):
        ann = RestClient(url, "ann")
        refused = proxy.inject(
            RefuseCommand(14031, "OutOfDiskSpace"),
            "aggregate",
            collection="room_members",
            where=lambda command: "$userId" in str(command.document["pipeline"]),  # counts memberships by user
        )
        for _ in range(3):
            assert (await ann.call("POST", "/v1/chatrooms", json=ROOM))[0] == 503
        assert len(refused.hits) >= 3, "a command that was sent again is tried until it expires"
        refused.remove()
        statuses = [(await ann.call("POST", "/v1/chatrooms", json=ROOM))[0] for _ in range(3)]
        assert statuses == [201, 201, 429]


async def _forbidden(calling: Any, bound: str) -> None:
    status, body = await calling
    assert (status, body["error"]["code"]) == (403, "FORBIDDEN")
    assert bound in body["error"]["message"]


@pytest.mark.parametrize("limits", [{"rate_signals_per_minute": 3, "rate_subscribes_per_minute": 2}], indirect=True)
async def test_signals_and_subscribes_get_an_error_frame_even_without_an_id(system: Limited) -> None:
    room = await system.rest("ann").create_room()
    async with await system.socket("ann") as first, await system.socket("ann") as second:
        await first.ask("chat:read", chatroomId=room, seq=0)
        await second.ask("chat:typing", chatroomId=room, isTyping=True)
        await first.ask("presence:get", userIds=["ann"])
        for type_, fields in (("chat:typing", {"isTyping": False}), ("chat:read", {"seq": 0})):
            await second.send(type_, chatroomId=room, **fields)
            refused = await second.data("error")
            assert (refused["code"], refused["request"]) == ("RATE_LIMITED", type_)
            assert 0 < refused["retryAfterMs"] <= MINUTE_MS
        assert (await first.ask("presence:get", userIds=["ann"]))["data"]["code"] == "RATE_LIMITED"
        for _ in range(2):
            assert (await first.ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "subscribed"
        assert (await second.ask("subscribe", channel="notifications"))["data"]["code"] == "RATE_LIMITED"
        assert (await second.ask("chat:send", chatroomId=room, message="x"))["type"] == "chat:ack"
    token = {"subscriptions": [{"channel": "chatroom", "chatroomId": room}]}
    async with await LiveClient.open(system.url) as third:
        await third.send("auth", token=mint("ann"), **token)
        assert (await third.data("subscribed"))["chatroomId"] == room
    async with await system.socket("boss", role="admin") as boss:
        for _ in range(10):
            assert (await boss.ask("presence:get", userIds=["ann"]))["type"] == "presence:state"


@pytest.mark.parametrize("limits", [{"rate_reads_per_minute": 5}], indirect=True)
async def test_reads_over_rest_are_limited_before_any_work(system: Limited) -> None:
    ann = system.rest("ann")
    for _ in range(3):
        await ann.data("GET", "/v1/chatrooms")
    for _ in range(2):
        assert (await ann.call("GET", "/v1/chatrooms/room_unknown"))[0] == 404
    async with aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {mint('ann')}"}
        async with http.get(f"{system.url}/v1/presence?ids=ann", headers=headers) as response:
            refused = await response.json()
            assert (response.status, refused["error"]["code"]) == (429, "RATE_LIMITED")
            assert 0 < refused["error"]["retryAfterMs"] <= MINUTE_MS
            assert int(response.headers["Retry-After"]) == -(-refused["error"]["retryAfterMs"] // 1000)
    assert (await ann.call("POST", "/v1/chatrooms", json=ROOM))[0] == 201
    assert (await system.rest("ben").call("GET", "/v1/chatrooms"))[0] == 200
    for _ in range(10):
        await system.rest("feed", role="service").data("GET", "/v1/chatrooms")
