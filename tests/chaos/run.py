"""One run: users, traffic, faults, settling, verdict."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from tests.chaos.access import AccessTraffic
from tests.chaos.changes import ChangeTraffic
from tests.chaos.client import ChaosClient
from tests.chaos.faults import FaultInjector, InjectedFault
from tests.chaos.ledger import Ledger, Violation
from tests.chaos.plan import Fault
from tests.chaos.roles import RoleTraffic
from tests.chaos.settle import ADMIN, Settling
from tests.chaos.system import Patient
from tests.chaos.traffic import EventPublisher, Traffic, TrafficRates
from tests.chaos.victim import ExcludedClient
from tests.support.live_client import RestClient
from tests.support.waiting import until

USERS = 12
PUBLIC_ROOMS = 5
PAIRS = 8
REMOVED_USERS = 6
BANNED_USERS = 3
GUARDED_ROOMS = 2  # private rooms from which users are removed
GUARDS = 3  # users who stay in them
SYMBOLS = ("CHAOS1", "CHAOS2", "CHAOS3")
START_TIMEOUT_S = 30.0
MEMORY_GROWTH_MAX_MIB = 60


@dataclass
class ChaosOutcome:
    """The result of a run."""

    ledger: Ledger
    traffic: Traffic
    access: AccessTraffic
    roles: RoleTraffic
    changes: ChangeTraffic
    done: list[InjectedFault]
    violations: list[Violation] = field(default_factory=list)
    presence_s: float = 0.0
    settled_s: float = 0.0
    queues: dict[str, int] = field(default_factory=dict)
    memory_mib: dict[str, tuple[int, int]] = field(default_factory=dict)  # at the start, at the end


@dataclass
class People:
    """The users and the rooms they chat in."""

    rooms: list[str]
    private: list[str]
    guarded: list[str]
    heavy: str
    pairs: list[tuple[str, str]]

    @property
    def all_rooms(self) -> list[str]:
        """Return all rooms except direct ones."""
        return [*self.rooms, *self.private, *self.guarded, self.heavy]


def victim_names(fate: str, count: int) -> list[str]:
    """Return the ids of the users who meet one fate."""
    return [f"{fate}{number}" for number in range(count)]


async def make_people(patient: Patient) -> People:
    """Create the users' public, private and direct rooms before the clients connect."""
    users = [f"user{number}" for number in range(USERS)]
    admin = RestClient(patient.url, ADMIN, role="admin")
    rooms = [await admin.create_room(f"Chaos {number}") for number in range(PUBLIC_ROOMS)]
    private = [await admin.create_room(f"Private {part}", "private", memberIds=users[part::2]) for part in range(2)]
    guards = [*users[:GUARDS], *victim_names("removed", REMOVED_USERS), *victim_names("banned", BANNED_USERS)]
    guarded = [
        await admin.create_room(f"Guarded {number}", "private", memberIds=guards) for number in range(GUARDED_ROOMS)
    ]
    heavy = await admin.create_room("Heavy", "group", memberIds=users)
    pairs = [pair for both in list(combinations(users, 2))[:: USERS // 2][:PAIRS] for pair in (both, both[::-1])]
    return People(rooms, private, guarded, heavy, pairs)


def make_clients(
    patient: Patient, people: People, direct: dict[str, list[str]], ledger: Ledger, clock: Callable[[], float]
) -> list[ChaosClient]:
    """Return a device for each user and a second one for every third.

    Every device listens to three public rooms, the room of large messages, a private room and its direct rooms; some
    to the rooms from which others are removed.
    """
    clients = []
    for number in range(USERS):
        user = f"user{number}"
        public = [people.rooms[(number + step) % PUBLIC_ROOMS] for step in range(3)]
        guarded = people.guarded if number < GUARDS else []
        rooms = [*public, people.heavy, people.private[number % 2], *guarded, *direct.get(user, [])]
        for device in ("a", "b") if number % 3 == 0 else ("a",):
            clients.append(ChaosClient(f"{user}/{device}", user, patient.url, ledger, clock, rooms, SYMBOLS))
    return clients


def make_access(
    patient: Patient, people: People, publisher: EventPublisher, ledger: Ledger, clock: Callable[[], float], seed: int
) -> AccessTraffic:
    """Return the users who lose access, each with one device."""
    removed, banned = (
        [
            ExcludedClient(f"{user}/a", user, patient.url, ledger, clock, people.guarded)
            for user in victim_names(fate, count)
        ]
        for fate, count in (("removed", REMOVED_USERS), ("banned", BANNED_USERS))
    )
    admin = RestClient(patient.url, ADMIN, role="admin")
    return AccessTraffic(patient.url, admin, removed, banned, publisher, ledger, clock, seed)


async def open_direct_rooms(
    patient: Patient, people: People, ledger: Ledger, clock: Callable[[], float]
) -> dict[str, list[str]]:
    """Send the first message of each pair, which creates their room, and return each user's direct rooms."""
    direct: dict[str, list[str]] = {}
    for number, (here, there) in enumerate(people.pairs[::2]):
        key = f"first{number}"
        body = {"userId": there, "message": key, "clientMessageId": key}
        message = await RestClient(patient.url, here).data("POST", "/v1/messages/direct", json=body)
        ledger.note_sent(key, here, [f"room:{message['chatroomId']}"], clock())
        for user in (here, there):
            direct.setdefault(user, []).append(message["chatroomId"])
    return direct


async def run(
    patient: Patient,
    plan: Sequence[Fault] | None,
    seed: int,
    *,
    rates: TrafficRates | None = None,
    at_most_s: float = math.inf,
    until_expired: bool = True,
    say: Callable[[str], None] = print,
) -> ChaosOutcome:
    """Inject the plan's faults under load, or roll all processes if there is no plan, and return the result.

    Faults that are not injected after `at_most_s` are left out.
    """
    started_s = time.monotonic()

    def clock() -> float:
        return time.monotonic() - started_s

    ledger, publisher = Ledger(), EventPublisher(*patient.broker_urls)
    people = await make_people(patient)
    direct = await open_direct_rooms(patient, people, ledger, clock)
    clients = make_clients(patient, people, direct, ledger, clock)
    traffic = Traffic(patient.url, clients, publisher, ledger, clock, seed)
    traffic.visitors = clients[-3:]
    access = make_access(patient, people, publisher, ledger, clock, seed)
    devices = [*clients, *access.victims]
    faults = FaultInjector(patient, clients, publisher, clock, say)
    roles = RoleTraffic(patient.url, RestClient(patient.url, ADMIN, role="admin"), ledger, clock, seed)
    await roles.prepare()
    changes = ChangeTraffic(patient.url, RestClient(patient.url, ADMIN, role="admin"), ledger, clock, seed)
    await changes.prepare()
    outcome = ChaosOutcome(ledger, traffic, access, roles, changes, faults.done)
    living = [asyncio.create_task(client.run()) for client in devices]
    try:
        await traffic.quote(SYMBOLS)
        await until(lambda: all(client.is_ready for client in devices), START_TIMEOUT_S)
        before = await asyncio.to_thread(patient.memory_mib)
        rates = rates or TrafficRates()
        further = [*access.activities(rates), *roles.activities(rates), *changes.activities(rates)]
        acting = asyncio.create_task(traffic.run(rates, people.all_rooms, people.pairs, people.heavy, further))
        await (faults.roll() if plan is None else faults.carry_out(plan, at_most_s))
        await _settle(outcome, patient, people, acting, clock, until_expired=until_expired)
        _weigh(outcome, before, await asyncio.to_thread(patient.memory_mib))
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
        await changes.close()
        await publisher.close()
    outcome.violations = ledger.check()
    return outcome


async def _settle(
    outcome: ChaosOutcome,
    patient: Patient,
    people: People,
    acting: "asyncio.Task[None]",
    clock: Callable[[], float],
    *,
    until_expired: bool,
) -> None:
    traffic, last_s = outcome.traffic, clock()
    settling = Settling(patient, traffic, outcome.ledger, clock, outcome.access)
    patient.thaw()
    traffic.visitors.clear()
    outcome.presence_s = await settling.presence(last_s)
    traffic.stop()
    await acting
    await settling.acks()
    await settling.bans()
    await settling.prices()
    await settling.stored(people.all_rooms, people.pairs[::2])
    await settling.deliveries()
    outcome.settled_s = clock() - last_s
    await settling.members([*people.all_rooms, *outcome.roles.rooms, *outcome.changes.rooms])
    await outcome.roles.settle()
    await outcome.changes.settle()
    outcome.queues = await settling.queues(until_expired=until_expired)


def _weigh(outcome: ChaosOutcome, before: dict[str, int], after: dict[str, int]) -> None:
    for name, mib in after.items():
        outcome.memory_mib[name] = (before.get(name, mib), mib)
        if mib > before.get(name, mib) + MEMORY_GROWTH_MAX_MIB:
            outcome.ledger.note_failure(f"{name} has grown from {before[name]} to {mib} MiB")
