"""Events of internal services, published with plain aio-pika, to inboxes and listeners."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.bus.delivery import DeliveryKind, community_channel, inbox_channel, room_channel
from shared.commands.command import ReplayedFrames
from shared.commands.notifier import (
    CountUnread,
    InboxHead,
    ListNotifications,
    MarkAllRead,
    MarkNotificationRead,
    NotificationPage,
    NotificationView,
    OpenInbox,
    ReplayInbox,
    UnreadCount,
)
from shared.errors import ErrorCode, Refusal
from shared.ids import Prefix, new_id
from tests.support.events import cloud_event
from tests.support.infrastructure import Infrastructure
from tests.support.notifications import NotifierClient, frame_of, notifier_client
from tests.support.queues import empty_queues
from tests.support.services import notifier
from tests.support.waiting import until


@pytest.fixture(scope="module")
async def client(infrastructure: Infrastructure) -> AsyncIterator[NotifierClient]:
    """One notifier, shared by all tests here; each test has its own users."""
    await empty_queues(infrastructure.amqp_url)
    async with (
        notifier(infrastructure.amqp_url, infrastructure.mongodb_uri, new_id(Prefix.COMMAND)),
        notifier_client(infrastructure.amqp_url) as client,
    ):
        yield client


@pytest.fixture
def user() -> str:
    """A user of this test only."""
    return new_id(Prefix.SESSION)


async def settled(client: NotifierClient) -> None:
    """Wait until all published events have been handled."""
    marker = new_id(Prefix.SESSION)
    await client.notify(marker)
    await until(client.has(inbox_channel(marker), 1))


async def test_notification_reaches_inbox_of_user(client: NotifierClient, user: str) -> None:
    data = {"userId": user, "title": "New Comment", "message": "John commented", "link": "/posts/1"}
    await client.publish("notification.created", data, time="2025-10-21T12:00:00Z")
    await until(client.has(inbox_channel(user), 1))
    [delivery] = client.inbox(user)
    assert (delivery.kind, delivery.position) == (DeliveryKind.ORDERED, 1)
    frame = frame_of(delivery)
    assert frame["type"] == "notification:new"
    assert frame["data"].pop("id").startswith("notif_")
    expected = data | {"priority": "medium", "createdAt": "2025-10-21T12:00:00.000Z", "seq": 1}
    assert frame["data"] == expected


@pytest.mark.parametrize(
    ("type_", "client_type", "audience", "channel"),
    [
        ("post.created", "post:created", None, "community:{id}"),
        ("trade.created", "trade:created", None, "all"),
        ("session.started", "session:started", None, "all"),
        ("session.ended", "session:ended", None, "all"),
        ("price.target.hit", "price:target:hit", "room:{id}", "room:{id}"),
        ("trade.created", "trade:created", "community:{id}", "community:{id}"),
        ("news.flash", "news:flash", "all", "all"),
    ],
)
async def test_listeners_receive_events_unchanged(
    client: NotifierClient, user: str, type_: str, client_type: str, audience: str | None, channel: str
) -> None:
    data = {"communityId": user, "title": "x"}
    await client.publish(type_, data, **({} if audience is None else {"audience": audience.format(id=user)}))
    wanted = {"type": client_type, "data": data}
    name = channel.format(id=user)
    await until(lambda: any(frame_of(delivery) == wanted for delivery in client.on(name)))
    [delivery] = [delivery for delivery in client.on(name) if frame_of(delivery) == wanted]
    assert (delivery.kind, delivery.position, len(delivery.key)) == (DeliveryKind.UNORDERED, 0, 32)
    assert {room_channel(user), community_channel(user), "all"} >= {name}


async def test_every_event_to_users_is_in_their_inboxes(client: NotifierClient, user: str) -> None:
    await client.publish("order.filled", {"orderId": "o"}, audience=f"users:{user},{user}x")
    await client.publish("order.filled", {"orderId": "p"}, audience=f"user:{user}")
    await until(client.has(inbox_channel(user), 2))
    assert [frame_of(delivery) for delivery in client.inbox(user)] == [
        {"type": "order:filled", "data": {"orderId": "o", "seq": 1}},
        {"type": "order:filled", "data": {"orderId": "p", "seq": 2}},
    ]
    assert [frame_of(delivery)["data"] for delivery in client.inbox(f"{user}x")] == [{"orderId": "o", "seq": 1}]


async def test_duplicate_event_is_delivered_once(client: NotifierClient, user: str) -> None:
    for source in ("/a", "/a", "/b", "/a"):
        await client.notify(user, source, id_=f"evt-{user}", source=source)
        await client.publish("post.created", {"communityId": user}, id_=f"post-{user}", source=source)
    await settled(client)
    assert client.titles(user) == ["/a", "/b"]
    assert len(client.on(community_channel(user))) == 2


async def test_duplicate_event_in_one_body_is_delivered_once(client: NotifierClient, user: str) -> None:
    body = cloud_event(f"evt-{user}", "notification.created", {"userId": user, "title": "t", "message": "m"})
    await client.publish_body(body + b"\n" + body, "notification.created")
    await settled(client)
    assert len(client.inbox(user)) == 1


@pytest.mark.parametrize(
    ("body", "key", "expected"),
    [
        (b"garbage", "notification.created", "not valid JSON"),
        (b"", "notification.created", "not valid JSON"),
        (b"\xff\xfe\x00", "a.b", "not valid JSON"),
        (b'{"data":' + b'{"a":' * 50_000, "a.b", "not valid JSON"),
        (b"{}", "a.b", "is missing"),
        (cloud_event("e", "a.b", {}), "a.b", "audience: is missing, and a.b has no default"),
        (cloud_event("e", "a.b", {}, audience="team:x"), "a.b", "audience: must be"),
        (cloud_event("e", "a.b", {"t": "x" * 300_000}, audience="all"), "a.b", "data: is larger than"),
        (cloud_event("e", "a.b", {}, audience="users:" + ",".join(map(str, range(10_001)))), "a.b", "10001 users"),
        (cloud_event("e", "notification.created", {"title": "t", "message": "m"}), "notification.created", "userId"),
        (cloud_event("e", "notification.created", {"userId": "u", "title": 1}), "notification.created", "data.title"),
        (cloud_event("e", "post.created", {}), "post.created", "data.communityId: is missing"),
        (cloud_event("e", "market.tick", {}), "a.b", "market.tick needs the routing key market.tick"),
        (cloud_event("e", "user.banned", {"userId": "u"}), "a.b", "user.banned needs the routing key user.banned"),
        (cloud_event("e", "user.banned", {}), "user.banned", "data.userId: is missing"),
    ],
)
async def test_invalid_event_is_dead_lettered_alone(
    client: NotifierClient, user: str, body: bytes, key: str, expected: str
) -> None:
    await client.dead_letters()
    await client.publish_body(body, key)
    await client.notify(user)
    await until(client.has(inbox_channel(user), 1))
    dead_letters: list[tuple[str, bytes]] = []

    async def arrived() -> bool:
        dead_letters.extend(await client.dead_letters())
        return bool(dead_letters)

    deadline_s = time.monotonic() + 10
    while not await arrived():
        assert time.monotonic() < deadline_s
    [(reason, dead)] = dead_letters
    assert expected in reason
    assert dead == body


async def test_events_with_own_queues_are_skipped(client: NotifierClient, user: str) -> None:
    await client.dead_letters()
    await client.publish_body(b"garbage", "market.tick")
    await client.publish_body(b"garbage", "user.updated")
    await client.notify(user)
    await settled(client)
    assert await client.dead_letters() == []


async def test_missed_entries_are_replayed_as_live(client: NotifierClient, user: str) -> None:
    for number in range(5):
        await client.notify(user, f"t{number}")
    await client.publish("order.filled", {"orderId": "o"}, audience=f"user:{user}")
    await until(client.has(inbox_channel(user), 6))
    live = [delivery.frame for delivery in client.inbox(user)]
    head = await client.ask(user, OpenInbox, InboxHead, since=2)
    assert (head.seq, head.recovered, head.first) == (6, True, 3)
    assert [bytes(frame) for frame in head.frames] == live[2:]
    replay = await client.ask(user, ReplayInbox, ReplayedFrames, after=1, through=4)
    assert (replay.first, [bytes(frame) for frame in replay.frames]) == (2, live[1:4])
    assert (await client.ask(user, OpenInbox, InboxHead, since=6)).recovered
    assert (await client.ask(user, OpenInbox, InboxHead)).seq == 6


async def test_unknown_inbox_is_empty(client: NotifierClient, user: str) -> None:
    head = await client.ask(user, OpenInbox, InboxHead, since=0)
    assert (head.seq, head.recovered, head.frames) == (0, True, ())
    assert await client.ask(user, ListNotifications, NotificationPage, page=1, limit=20) == NotificationPage(
        items=(), total=0
    )


async def test_client_ahead_or_too_far_behind_is_not_recovered(client: NotifierClient, user: str) -> None:
    lines = [
        cloud_event(f"{user}-{number}", "notification.created", {"userId": user, "title": "t", "message": "m"})
        for number in range(1001)
    ]
    await client.publish_body(b"\n".join(lines), "notification.created")
    await until(client.has(inbox_channel(user), 1001))
    assert [delivery.position for delivery in client.inbox(user)] == list(range(1, 1002))
    far_behind = await client.ask(user, OpenInbox, InboxHead, since=0)
    assert (far_behind.seq, far_behind.recovered, far_behind.frames) == (1001, False, ())
    just_in_reach = await client.ask(user, OpenInbox, InboxHead, since=1)
    assert (just_in_reach.recovered, len(just_in_reach.frames)) == (True, 1000)
    ahead = await client.ask(user, OpenInbox, InboxHead, since=1002)
    assert (ahead.recovered, ahead.frames) == (False, ())


async def test_event_for_10_000_users_reaches_all(client: NotifierClient, user: str) -> None:
    names = [f"{user}-{number}" for number in range(10_000)]
    started_s = time.monotonic()
    for number in range(2):
        await client.publish("order.filled", {"n": number}, audience="users:" + ",".join(names))
    received: set[str] = set()
    await until(lambda: _count_second_deliveries(client, received, user) == 10_000, timeout_s=60)
    assert time.monotonic() - started_s < 60
    last = await client.ask(names[-1], OpenInbox, InboxHead, since=0)
    assert [json.loads(bytes(frame))["data"] for frame in last.frames] == [{"n": 0, "seq": 1}, {"n": 1, "seq": 2}]


def _count_second_deliveries(client: NotifierClient, received: set[str], user: str) -> int:
    received.update(
        delivery.channel
        for delivery in client.deliveries
        if delivery.position == 2 and delivery.channel.startswith(f"inbox:{user}-")
    )
    return len(received)


# REST ---------------------------------------------------------------------------------------------------------------


async def listed(client: NotifierClient, user: str, **more: Any) -> NotificationPage:
    return await client.ask(user, ListNotifications, NotificationPage, **({"page": 1, "limit": 20} | more))


async def unread_count(client: NotifierClient, user: str) -> int:
    return (await client.ask(user, CountUnread, UnreadCount)).unread_count


async def test_inbox_is_listed_newest_first_by_page(client: NotifierClient, user: str) -> None:
    for number in range(5):
        await client.notify(user, f"t{number}")
    await until(client.has(inbox_channel(user), 5))
    first = await listed(client, user, limit=2)
    assert (first.total, [item.title for item in first.items]) == (5, ["t4", "t3"])
    last = await listed(client, user, limit=2, page=3)
    assert (last.total, [item.title for item in last.items]) == (5, ["t0"])
    assert [item.seq for item in (await listed(client, user)).items] == [5, 4, 3, 2, 1]
    live = frame_of(client.inbox(user)[-1])["data"]
    item = first.items[0]
    assert json.loads(bytes(item.data)) == live
    assert (item.id, item.type, item.created_at) == (live["id"], "notification:new", live["createdAt"])
    assert (item.message, item.priority, item.read, item.read_at) == ("m", "medium", False, None)


async def test_read_marks_are_idempotent_and_counted(client: NotifierClient, user: str) -> None:
    for number in range(3):
        await client.notify(user, f"t{number}")
    await until(client.has(inbox_channel(user), 3))
    newest = (await listed(client, user)).items[0]
    once = await client.ask(user, MarkNotificationRead, NotificationView, notification_id=newest.id)
    again = await client.ask(user, MarkNotificationRead, NotificationView, notification_id=newest.id)
    assert once.read
    assert (once.id, once.read_at) == (newest.id, again.read_at)
    assert await unread_count(client, user) == 2
    unread = await listed(client, user, unread=True)
    assert (unread.total, [item.title for item in unread.items]) == (2, ["t1", "t0"])
    for _ in range(2):
        assert await client.ask(user, MarkAllRead, UnreadCount) == UnreadCount(unread_count=0)
    assert [item.read for item in (await listed(client, user)).items] == [True] * 3
    await client.notify(user, "t3")
    await until(client.has(inbox_channel(user), 4))
    assert await unread_count(client, user) == 1


async def test_notification_of_other_user_is_not_found(client: NotifierClient, user: str) -> None:
    await client.notify(user)
    await until(client.has(inbox_channel(user), 1))
    [item] = (await listed(client, user)).items
    for caller, id_ in ((f"{user}x", item.id), (user, "notif_of_nobody")):
        with pytest.raises(Refusal) as refusal:
            await client.ask(caller, MarkNotificationRead, NotificationView, notification_id=id_)
        assert refusal.value.code is ErrorCode.NOT_FOUND
    assert await unread_count(client, user) == 1
