"""Every step of notifier's commits fails once, before or after it took effect; a retry repairs everything."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from notifier.__main__ import INDEXES
from notifier.alerts.book import AlertTerms
from notifier.alerts.store import Alert, AlertStore
from notifier.alerts.trimming import FiredAlertTrimmer
from notifier.alerts.watcher import AlertWatcher
from notifier.events.notifications import Entry
from notifier.events.store import EventStore
from notifier.inbox.inbox import Inboxes
from notifier.inbox.store import InboxStore
from notifier.intake.consumer import EventConsumer
from notifier.revocations.consumer import RevocationConsumer
from notifier.revocations.store import RevocationStore
from shared.bus.consumer import Line
from shared.bus.delivery import Delivery
from shared.bus.topology import NOTIFIER_TICKS
from shared.commands.market import AppliedTick, AppliedTicks
from shared.commands.notifier import AlertDirection, Revocation
from shared.errors import Unavailable
from shared.mongo import Database
from shared.times import MILLISECONDS_PER_DAY
from tests.support.events import cloud_event
from tests.support.publishing import PublisherStub
from tests.support.ready_database import ready_database

NOW_MS = 1_800_000_000_000
STEPS_MAX = 40
DAYS = 30


class StepFaults:
    """Counts steps; the one of the given number raises Unavailable, before or after it took effect."""

    def __init__(self, number: int, *, after: bool) -> None:
        self.number = number
        self.after = after
        self.steps = 0

    def is_due(self) -> bool:
        self.steps += 1
        return self.steps == self.number

    def around(self, store: Any) -> Any:
        """Return the store with every call as a step."""
        return _Faulty(store, self)


class _Faulty:
    def __init__(self, store: Any, faults: StepFaults) -> None:
        self._store = store
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def step(*args: Any, **more: Any) -> Any:
            due = self._faults.is_due()
            if due and not self._faults.after:
                raise Unavailable("before it took effect")
            result = await method(*args, **more)
            if due:
                raise Unavailable("after it took effect")
            return result

        return method if name == "active" else step


class StepBroker(PublisherStub):
    """Accepts lines and confirms them; each is a step."""

    def __init__(self, faults: StepFaults) -> None:
        self.deliveries: list[Delivery] = []
        self.events: list[bytes] = []
        self._faults = faults

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        return self._confirm(self.deliveries, delivery)

    def publish(self, exchange: str, key: str, line: bytes) -> "asyncio.Future[None]":
        return self._confirm(self.events, line)

    def _confirm(self, taken: list[Any], item: Any) -> "asyncio.Future[None]":
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = self._faults.is_due()
        if not due or self._faults.after:
            taken.append(item)
        if due:
            confirm.set_exception(Unavailable("no confirm"))
            confirm.exception()
        else:
            confirm.set_result(None)
        return confirm


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        yield database


def lines(*bodies: bytes, key: str = "a.b") -> list[Line]:
    return [Line(body, None, key, redelivered=False) for body in bodies]


EVENTS = [
    cloud_event("1", "notification.created", {"userId": "ann", "title": "one", "message": "m"}),
    cloud_event("2", "a.b", {"n": 2}, audience="users:ann,bob,cid"),
    cloud_event("3", "a.b", {"n": 3}, audience="all"),
    cloud_event("4", "a.b", {"n": 4}, audience="users:bob,ann"),
]


@pytest.mark.parametrize("after", [False, True])
async def test_events_survive_failure_of_each_step(database: Database, *, after: bool) -> None:
    """All steps share one database; each step number has its own events."""
    failed = 0
    for number in range(1, STEPS_MAX):
        users = {name: f"{name}-{number}" for name in ("ann", "bob", "cid")}
        bodies = []
        for event in map(json.loads, EVENTS):
            text = json.dumps(event | {"source": f"/{number}"})
            for name, user in users.items():
                text = text.replace(name, user)
            bodies.append(text.encode())
        faults = StepFaults(number, after=after)
        broker = StepBroker(faults)
        events, entries = EventStore(database, DAYS), InboxStore(database, DAYS)
        intake = EventConsumer(faults.around(events), Inboxes(faults.around(entries)), broker, lambda: NOW_MS)
        try:
            await intake.handle(lines(*bodies))
        except Unavailable:
            failed += 1
            await intake.handle(lines(*bodies))
        else:
            assert faults.steps < number
            break
        assert await _delivery_errors(broker, entries, users) == [], f"step {number}"
        received = len(broker.deliveries)
        await intake.handle(lines(*bodies))
        assert len(broker.deliveries) == received
    assert failed > 10


async def _delivery_errors(broker: StepBroker, store: InboxStore, users: dict[str, str]) -> list[str]:
    """Return the faults of the deliveries and the stored entries."""
    wrong: list[str] = []
    wanted: dict[str, list[int | None]] = {"ann": [None, 2, 4], "bob": [2, 4], "cid": [2]}
    for name, expected in wanted.items():
        frames: dict[int, bytes] = {}
        for delivery in broker.deliveries:
            if (
                delivery.channel == f"inbox:{users[name]}"
                and frames.setdefault(delivery.position, delivery.frame) != delivery.frame
            ):
                wrong.append(f"{name}: another frame with the same seq")
        received = [json.loads(frames[seq])["data"].get("n") for seq in sorted(frames)]
        if received != expected or sorted(frames) != list(range(1, len(expected) + 1)):
            wrong.append(f"{name}: received {received}")
        kept = [entry.seq for entry in await store.entries_between(users[name], 0, 100)]
        if kept != list(range(1, len(expected) + 1)):
            wrong.append(f"{name}: kept {kept}")
    if len({delivery.key for delivery in broker.deliveries if delivery.channel == "all"}) != 1:
        wrong.append("all: not delivered, or not by one key")
    return wrong


@pytest.mark.parametrize("after", [False, True])
async def test_revocations_survive_failure_of_each_step(database: Database, *, after: bool) -> None:
    failed = 0
    for number in range(1, STEPS_MAX):
        user = f"mallory-{number}"
        source = f"/{number}"
        bodies = [
            cloud_event("1", "user.banned", {"userId": user, "until": "2100-01-01T00:00:00Z"}),
            cloud_event("2", "user.revoked", {"userId": user}, time="2026-01-01T00:00:00Z"),
            cloud_event("3", "user.banned", {"userId": user, "until": "2000-01-01T00:00:00Z"}),
        ]
        bodies = [json.dumps(json.loads(body) | {"source": source}).encode() for body in bodies]
        faults = StepFaults(number, after=after)
        broker = StepBroker(faults)
        store = RevocationStore(database, DAYS)
        consumer = RevocationConsumer(
            faults.around(EventStore(database, DAYS)), faults.around(store), broker, lambda: NOW_MS
        )
        try:
            await consumer.handle(lines(*bodies, key="user.banned"))
        except Unavailable:
            failed += 1
            await consumer.handle(lines(*bodies, key="user.banned"))
        else:
            assert faults.steps < number
            break
        kept = (await store.revocations([user]))[user]
        assert (kept.issued_before_ms, kept.is_banned(NOW_MS)) == (1_767_225_600_000, False)
        last = msgspec.json.decode(broker.deliveries[-1].frame, type=Revocation)
        assert last == kept
        assert broker.deliveries[-1].channel == "control"
    assert failed > 5
    versions = [revocation.version for revocation in await RevocationStore(database, DAYS).after(0, 1000)]
    assert len(versions) == failed + 1
    assert versions == sorted(set(versions))


async def test_repeated_revocation_keeps_time_of_first_try(database: Database) -> None:
    clock = [NOW_MS]
    store, broker = RevocationStore(database, DAYS), StepBroker(StepFaults(1, after=False))
    consumer = RevocationConsumer(EventStore(database, DAYS), store, broker, lambda: clock[0])
    body = cloud_event("1", "user.revoked", {"userId": "mallory"})
    with pytest.raises(Unavailable):
        await consumer.handle(lines(body, key="user.revoked"))
    clock[0] += 60_000
    await consumer.handle(lines(body, key="user.revoked"))
    assert (await store.revocations(["mallory"]))["mallory"].issued_before_ms == NOW_MS


@pytest.mark.parametrize("after", [False, True])
async def test_alerts_survive_failure_of_each_step(database: Database, *, after: bool) -> None:
    failed = 0
    for number in range(1, STEPS_MAX):
        store = AlertStore(database, DAYS)
        ids = [f"alert-{number}-{one}" for one in range(3)]
        for id_ in ids:
            terms = AlertTerms(id_, "ann", f"A{number}", AlertDirection.ABOVE, 2.0)
            assert await store.insert(Alert(terms, NOW_MS)) is not None
        faults = StepFaults(number, after=after)
        broker = StepBroker(faults)
        watch = AlertWatcher(faults.around(store), broker, lambda: NOW_MS, FiredAlertTrimmer(store))
        body = msgspec.json.encode(
            AppliedTicks(ticks=[AppliedTick(f"A{number}", price, 7, NOW_MS) for price in (1, 5, 6)])
        )
        try:
            await watch.handle(lines(body, key=NOTIFIER_TICKS))
        except Unavailable:
            failed += 1
            await watch.handle(lines(body, key=NOTIFIER_TICKS))
        else:
            assert faults.steps < number
            break
        received = [json.loads(event) for event in broker.events]
        assert {event["id"] for event in received} == set(ids)
        assert {event["data"]["tick"]["price"] for event in received} == {5}
        assert await store.unannounced() == []
        for id_ in ids:
            kept = await store.find("ann", id_)
            assert kept is not None and kept.fired is not None
        events = len(broker.events)
        await watch.handle(lines(body, key=NOTIFIER_TICKS))
        assert len(broker.events) == events
    assert failed > 5


async def test_ticks_without_alerts_cost_no_query(database: Database) -> None:
    faults = StepFaults(0, after=False)
    store = AlertStore(database, DAYS)
    watch = AlertWatcher(faults.around(store), StepBroker(faults), lambda: NOW_MS, FiredAlertTrimmer(store))
    body = msgspec.json.encode(AppliedTicks(ticks=[AppliedTick("A", 1.0, 7, NOW_MS)]))
    await watch.handle(lines(body, key=NOTIFIER_TICKS))
    loaded = faults.steps
    await watch.handle(lines(body, key=NOTIFIER_TICKS))
    assert faults.steps == loaded > 0


async def test_concurrent_writers_leave_no_gap(database: Database) -> None:
    """A consumer that was cut off continues for a while beside its successor."""
    broker = StepBroker(StepFaults(0, after=False))
    events, entries = EventStore(database, DAYS), InboxStore(database, DAYS)
    writers = [EventConsumer(events, Inboxes(entries), broker, lambda: NOW_MS) for _ in range(2)]
    bodies = [cloud_event(str(number), "a.b", {"n": number}, audience="users:ann,bob") for number in range(60)]
    for number in range(0, 20, 2):  # in turns, each with its own memory
        await writers[number // 2 % 2].handle(lines(*bodies[number : number + 2]))

    async def write(writer: EventConsumer) -> None:  # each writes all of them, concurrently
        for body in bodies:
            await writer.handle(lines(body))

    await asyncio.gather(*map(write, writers))
    for user in ("ann", "bob"):
        kept = await entries.entries_between(user, 0, 1000)
        assert [entry.seq for entry in kept] == list(range(1, 61))
        assert len({entry.key for entry in kept}) == 60


async def test_seqs_are_not_reused_after_expiry(database: Database) -> None:
    broker = StepBroker(StepFaults(0, after=False))
    entries = InboxStore(database, DAYS)
    bodies = [cloud_event(str(number), "a.b", {"n": number}, audience="users:ann,bob") for number in range(6)]
    await EventConsumer(EventStore(database, DAYS), Inboxes(entries), broker, lambda: NOW_MS).handle(lines(*bodies[:3]))
    assert await entries.sweep(NOW_MS + (DAYS - 1) * MILLISECONDS_PER_DAY) == 0
    assert await entries.sweep(NOW_MS + DAYS * MILLISECONDS_PER_DAY) == 6
    assert await entries.sweep(NOW_MS + DAYS * MILLISECONDS_PER_DAY) == 0
    assert await entries.entries_between("ann", 0, 100) == []
    assert await entries.heads(["ann", "bob", "cid"]) == {"ann": 3, "bob": 3, "cid": 0}
    assert await entries.head("ann") == 3
    await EventConsumer(EventStore(database, DAYS), Inboxes(entries), broker, lambda: NOW_MS).handle(lines(*bodies[3:]))
    assert [entry.seq for entry in await entries.entries_between("bob", 0, 100)] == [4, 5, 6]


async def test_heads_are_correct_for_short_and_long_inboxes(database: Database) -> None:
    store = InboxStore(database, DAYS)
    lengths = {f"u{number}": number % 40 for number in range(400)}  # more in all than one query reads
    entries = [
        Entry(f"notif_{user}_{seq}", f"key{seq}", user, seq)
        for user, length in lengths.items()
        for seq in range(1, length + 1)
    ]
    await store.insert_entries(entries, NOW_MS)
    assert await store.heads(lengths) == lengths
    few = dict(list(lengths.items())[:30])
    assert await store.heads(few) == few
