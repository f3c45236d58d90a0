"""Both clients with their connection cut at every point of a conversation.

Nothing is lost or repeated, and every promise settles. A point is a unit of either side: the head of the upgrade, then
each frame. The cut is before the unit or inside it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from shared.ids import Prefix, new_id
from tests.support.client_kinds import (
    ClientUnderTest,
    Connect,
    data_of,
    node_host,
    python_client,
    seen,
    web_client,
    within,
)
from tests.support.cutting_proxy import CuttingProxy, LinkCut, cutting_proxy
from tests.support.events import cloud_event, publish
from tests.support.local_system import LocalSystem
from tests.support.people import Person, people
from tests.support.tokens import mint
from tests.support.waiting import until

TIMEOUT_S = 60.0
AT_ONCE = 6

# Units of an uninterrupted conversation, at least; see the two conversations.
FIRST_CLIENT_UNITS = 5  # head, auth, three chat:send
FIRST_SERVER_UNITS = 13  # head, auth:ok, subscribed twice, a notification, three acks, five messages
AGAIN_CLIENT_UNITS = 3  # head, auth, chat:send
AGAIN_SERVER_UNITS = 10  # head, auth:ok, subscribed twice, four messages replayed, ack, message


def cuts(client_units: int, server_units: int) -> list[LinkCut]:
    """Yield a cut before and a cut inside each unit of both sides."""
    sides: Sequence[tuple[Any, int]] = (("client", client_units), ("server", server_units))
    return [LinkCut(side, n, is_partial) for side, units in sides for n in range(units) for is_partial in (False, True)]


@pytest.fixture(params=["python", "web"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    if request.param == "python":
        yield python_client
        return
    async with node_host() as host:
        yield web_client(host)


class Conversation:
    """A client behind its own proxy, in its own room, where another user writes too."""

    def __init__(self, client: ClientUnderTest, proxy: CuttingProxy, room: str, other: Person) -> None:
        self.client = client
        self.proxy = proxy
        self.room = room
        self.other = other

    async def subscribe(self) -> None:
        """Subscribe from the beginning, so that the expected messages are known."""
        await asyncio.gather(
            self.client.subscribe("chatroom", chatroomId=self.room, since=0),
            self.client.subscribe("notifications", since=0),
        )

    async def other_writes(self, count: int) -> None:
        for number in range(count):
            await self.other.data("POST", f"/v1/chatrooms/{self.room}/messages", json={"message": f"other {number}"})

    async def sends(self, count: int) -> list[Any]:
        return await asyncio.gather(*(self.client.send_message(self.room, f"own {number}") for number in range(count)))

    async def check(self, acks: Sequence[Any], messages: int) -> None:
        """Check that client, room and inbox hold the same messages, once and in order."""
        client = self.client
        shown = await seen(client, "chat:message", messages)
        await seen(client, "notification:new")
        stored = await self.other.data("GET", f"/v1/chatrooms/{self.room}/messages")
        assert [message["seq"] for message in shown] == list(range(1, messages + 1))
        assert [message["messageId"] for message in shown] == [message["id"] for message in reversed(stored)]
        own = [message for message in shown if message["message"].startswith("own")]
        assert [message["messageId"] for message in own] == [ack["messageId"] for ack in acks]
        assert [message["message"] for message in own] == [f"own {number}" for number in range(len(acks))]
        assert [notification["seq"] for notification in data_of(client, "notification:new")] == [1]
        assert data_of(client, "missed") == []


async def in_the_first_connection(talk: Conversation, place: LinkCut) -> None:
    """Subscribe, send and receive while the connection is cut at one point."""
    subscribing = asyncio.ensure_future(talk.subscribe())
    sending = asyncio.ensure_future(talk.sends(3))
    await subscribing
    await talk.other_writes(2)
    await talk.check(await sending, 5)


async def in_the_second_connection(talk: Conversation, place: LinkCut) -> None:
    """Cut the connection, let others and the client write, and cut the next connection during the resume."""
    await talk.subscribe()
    await seen(talk.client, "notification:new")
    talk.proxy.refuses = True
    talk.proxy.cut_all()
    await until(lambda: data_of(talk.client, "state")[-1]["state"] != "open", TIMEOUT_S)
    await talk.other_writes(4)
    sending = asyncio.ensure_future(talk.sends(1))
    talk.proxy.plan, talk.proxy.refuses = [place], False
    await talk.check(await sending, 5)


CASES = {
    "first": (in_the_first_connection, cuts(FIRST_CLIENT_UNITS, FIRST_SERVER_UNITS), 1),
    "second": (in_the_second_connection, cuts(AGAIN_CLIENT_UNITS, AGAIN_SERVER_UNITS), 2),
}


@pytest.mark.parametrize("case", CASES)
async def test_cut_connection_loses_and_repeats_nothing(system: LocalSystem, connect: Connect, case: str) -> None:
    entries = system.entries()
    meet = people(entries["GATEWAY_URL"])
    scenario, places, cuts_expected = CASES[case]
    whoever = [(place, meet("alice"), meet("bob")) for place in places]
    notification = {"title": "t", "message": "m", "priority": "low"}
    audience = "users:" + ",".join(alice.id for _, alice, _ in whoever)
    event = cloud_event(new_id(Prefix.COMMAND), "notification.created", notification, audience=audience)
    await publish(entries["AMQP_URL"], "notification.created", event)
    slots = asyncio.Semaphore(AT_ONCE)
    failures: dict[str, str] = {}

    async def cut_at(place: LinkCut, alice: Person, bob: Person) -> None:
        async with slots, cutting_proxy(entries["GATEWAY_URL"]) as proxy:
            room = await bob.create_room()
            proxy.plan = [place] if case == "first" else []  # the client connects at once
            async with connect(proxy.url, mint(alice.id)) as client:
                try:
                    await within(TIMEOUT_S, client, scenario(Conversation(client, proxy, room, bob), place))
                    assert proxy.cuts == cuts_expected, "the link was not cut"
                except (AssertionError, TimeoutError) as error:
                    failures[str(place)] = f"{error}; {data_of(client, 'state')}"

    await asyncio.gather(*(cut_at(*who) for who in whoever))
    assert failures == {}
