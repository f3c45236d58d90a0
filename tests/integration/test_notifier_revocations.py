"""Revocations and bans: sent to every gateway at once, and listed for gateways that start later."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from shared.bus.delivery import CONTROL_CHANNEL, DeliveryClass, inbox_channel
from shared.commands.notifier import FOR_EVER_MS, ListRevocations, Revocation, RevocationPage
from shared.times import from_iso, now_ms
from tests.support.events import cloud_event
from tests.support.notifications import Desk, desk_at
from tests.support.services import notifier
from tests.support.waiting import until

THEN = "2025-10-21T12:00:00.000Z"


@pytest.fixture
async def desk(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[Desk]:
    async with notifier(amqp_url, mongodb_uri, database_name), desk_at(amqp_url) as desk:
        yield desk


def announced(desk: Desk) -> list[Revocation]:
    """Collect the revocations that gateways receive, in order."""
    deliveries = desk.on(CONTROL_CHANNEL)
    assert all((one.kind, one.key) == (DeliveryClass.CONTROL, "standing") for one in deliveries)
    return [msgspec.json.decode(one.frame, type=Revocation) for one in deliveries]


async def listed(desk: Desk, after: int = 0) -> RevocationPage:
    return await desk.ask("system:gateway", ListRevocations, RevocationPage, after=after)


async def test_gateways_receive_changes_and_list_revocations(desk: Desk) -> None:
    before_ms = now_ms()
    await desk.publish("user.revoked", {"userId": "mallory"}, time=THEN)
    await until(desk.has(CONTROL_CHANNEL, 1))
    await desk.publish("user.banned", {"userId": "eve"})
    await until(desk.has(CONTROL_CHANNEL, 2))
    await desk.publish("user.banned", {"userId": "mallory", "until": "2100-01-01T00:00:00Z"})
    await until(desk.has(CONTROL_CHANNEL, 3))
    revoked, eve, mallory = announced(desk)
    assert (revoked.user_id, revoked.issued_before_ms, revoked.banned_until_ms) == ("mallory", from_iso(THEN), 0)
    assert (eve.user_id, eve.issued_before_ms, eve.banned_until_ms) == ("eve", 0, FOR_EVER_MS)
    until_ms = from_iso("2100-01-01T00:00:00Z")
    assert (mallory.issued_before_ms, mallory.banned_until_ms) == (from_iso(THEN), until_ms)
    assert before_ms <= revoked.version < eve.version < mallory.version
    assert await listed(desk) == RevocationPage(items=(eve, mallory), more=False)
    assert await listed(desk, after=eve.version) == RevocationPage(items=(mallory,), more=False)
    assert await listed(desk, after=mallory.version) == RevocationPage(items=(), more=False)


async def test_past_ban_lifts_ban(desk: Desk) -> None:
    await desk.publish("user.banned", {"userId": "eve"})
    await until(desk.has(CONTROL_CHANNEL, 1))
    await desk.publish("user.banned", {"userId": "eve", "until": THEN})
    await until(desk.has(CONTROL_CHANNEL, 2))
    banned, lifted = announced(desk)
    assert (banned.is_banned(now_ms()), lifted.is_banned(now_ms())) == (True, False)
    assert (await listed(desk)).items == (lifted,)


async def test_duplicate_event_is_delivered_once(desk: Desk) -> None:
    for _ in range(3):
        await desk.publish("user.revoked", {"userId": "mallory"}, id_="evt_1")
    await desk.publish("user.revoked", {"userId": "last"})
    await until(lambda: bool(announced(desk)) and announced(desk)[-1].user_id == "last")
    assert [one.user_id for one in announced(desk)] == ["mallory", "last"]


async def test_revocations_are_listed_by_page(desk: Desk) -> None:
    users = [f"user{number}" for number in range(1001)]
    lines = [cloud_event(user, "user.revoked", {"userId": user}) for user in users]
    await desk.publish_body(b"\n".join(lines), "user.revoked")
    await until(desk.has(CONTROL_CHANNEL, len(users)))
    first = await listed(desk)
    assert (len(first.items), first.more) == (1000, True)
    rest = await listed(desk, after=first.items[-1].version)
    assert (len(rest.items), rest.more) == (1, False)
    assert [one.user_id for one in (*first.items, *rest.items)] == users


async def test_ban_overtakes_waiting_events(desk: Desk) -> None:
    everybody = "users:" + ",".join(f"user{number}" for number in range(10_000))
    for number in range(5):
        await desk.publish("order.filled", {"n": number}, audience=everybody)
    await desk.publish("user.banned", {"userId": "eve"})
    await until(desk.has(CONTROL_CHANNEL, 1))
    assert len(desk.inbox("user9999")) < 5
    await until(desk.has(inbox_channel("user9999"), 5), timeout_s=60)
