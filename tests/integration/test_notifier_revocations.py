"""Revocations and bans: sent to every gateway at once, and listed for gateways that start later."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from shared.bus.delivery import CONTROL_CHANNEL, DeliveryKind, inbox_channel
from shared.commands.notifier import FOR_EVER_MS, ListRevocations, Revocation, RevocationPage
from shared.times import from_iso, now_ms
from tests.support.events import cloud_event
from tests.support.notifications import NotifierClient, notifier_client
from tests.support.services import notifier
from tests.support.waiting import until

THEN = "2025-10-21T12:00:00.000Z"


@pytest.fixture
async def client(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[NotifierClient]:
    async with notifier(amqp_url, mongodb_uri, database_name), notifier_client(amqp_url) as client:
        yield client


def announced(client: NotifierClient) -> list[Revocation]:
    """Collect the revocations that gateways receive, in order."""
    deliveries = client.on(CONTROL_CHANNEL)
    assert all((one.kind, one.key) == (DeliveryKind.CONTROL, "standing") for one in deliveries)
    return [msgspec.json.decode(one.frame, type=Revocation) for one in deliveries]


async def listed(client: NotifierClient, after: int = 0) -> RevocationPage:
    return await client.ask("system:gateway", ListRevocations, RevocationPage, after=after)


async def test_gateways_receive_changes_and_list_revocations(client: NotifierClient) -> None:
    before_ms = now_ms()
    await client.publish("user.revoked", {"userId": "mallory"}, time=THEN)
    await until(client.has(CONTROL_CHANNEL, 1))
    await client.publish("user.banned", {"userId": "eve"})
    await until(client.has(CONTROL_CHANNEL, 2))
    await client.publish("user.banned", {"userId": "mallory", "until": "2100-01-01T00:00:00Z"})
    await until(client.has(CONTROL_CHANNEL, 3))
    revoked, eve, mallory = announced(client)
    assert (revoked.user_id, revoked.issued_before_ms, revoked.banned_until_ms) == ("mallory", from_iso(THEN), 0)
    assert (eve.user_id, eve.issued_before_ms, eve.banned_until_ms) == ("eve", 0, FOR_EVER_MS)
    until_ms = from_iso("2100-01-01T00:00:00Z")
    assert (mallory.issued_before_ms, mallory.banned_until_ms) == (from_iso(THEN), until_ms)
    assert before_ms <= revoked.version < eve.version < mallory.version
    assert await listed(client) == RevocationPage(items=(eve, mallory), more=False)
    assert await listed(client, after=eve.version) == RevocationPage(items=(mallory,), more=False)
    assert await listed(client, after=mallory.version) == RevocationPage(items=(), more=False)


async def test_past_ban_lifts_ban(client: NotifierClient) -> None:
    await client.publish("user.banned", {"userId": "eve"})
    await until(client.has(CONTROL_CHANNEL, 1))
    await client.publish("user.banned", {"userId": "eve", "until": THEN})
    await until(client.has(CONTROL_CHANNEL, 2))
    banned, lifted = announced(client)
    assert (banned.is_banned(now_ms()), lifted.is_banned(now_ms())) == (True, False)
    assert (await listed(client)).items == (lifted,)


async def test_duplicate_event_is_delivered_once(client: NotifierClient) -> None:
    for _ in range(3):
        await client.publish("user.revoked", {"userId": "mallory"}, id_="evt_1")
    await client.publish("user.revoked", {"userId": "last"})
    await until(lambda: bool(announced(client)) and announced(client)[-1].user_id == "last")
    assert [one.user_id for one in announced(client)] == ["mallory", "last"]


async def test_revocations_are_listed_by_page(client: NotifierClient) -> None:
    users = [f"user{number}" for number in range(1001)]
    lines = [cloud_event(user, "user.revoked", {"userId": user}) for user in users]
    await client.publish_body(b"\n".join(lines), "user.revoked")
    await until(client.has(CONTROL_CHANNEL, len(users)))
    first = await listed(client)
    assert (len(first.items), first.more) == (1000, True)
    rest = await listed(client, after=first.items[-1].version)
    assert (len(rest.items), rest.more) == (1, False)
    assert [one.user_id for one in (*first.items, *rest.items)] == users


async def test_ban_overtakes_waiting_events(client: NotifierClient) -> None:
    everybody = "users:" + ",".join(f"user{number}" for number in range(10_000))
    for number in range(5):
        await client.publish("order.filled", {"n": number}, audience=everybody)
    await client.publish("user.banned", {"userId": "eve"})
    await until(client.has(CONTROL_CHANNEL, 1))
    assert len(client.inbox("user9999")) < 5
    await until(client.has(inbox_channel("user9999"), 5), timeout_s=60)
