"""Half of the users arrive; then they leave at once, while the other half arrives.

Every user is a member of a room of 100 and of a large room of 1,000, which receives counts. One more socket listens to
each room. The users subscribe to no room: each `subscribed` would count the members online, for the answer.
"""

import asyncio
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pymongo import MongoClient

from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect
from chat_service.rooms.room import Room, RoomType
from chat_service.storage.room_store import RoomStore
from shared.mongo import Mongo
from tests.bench import system
from tests.bench.dialects import Realtime
from tests.bench.fleet import Fleet, LoadFailed
from tests.bench.jobs.connect import Connect
from tests.bench.jobs.presence import Departure
from tests.bench.processes import CpuMeter, cpu_s, is_idle
from tests.bench.report import ScenarioOutcome
from tests.bench.system import Bench
from tests.support import scrape

ROOM_SIZE = 100
LARGE_ROOM_SIZE = 1_000
GATEWAYS = 2  # a process has fewer than 20,000 files
POLL_S = 1.0
IDLE_MEASURED_S = 6.0
IDLE_SHARE = 0.1  # of a core: the database of an idle system
AT_MS = 1_700_000_000_000


def run(options: Namespace) -> ScenarioOutcome:
    """Measure how long presence is wrong, and what it costs the database."""
    with system.running({"GATEWAYS": str(GATEWAYS), "CONNECTION_TIMEOUT_S": "600"}) as bench:  # the users send nothing
        return on(bench, options)


def on(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Run on a system that is already running."""
    users = [f"user-{number}" for number in range(options.sockets)]
    half = options.sockets // 2
    asyncio.run(_make_rooms(bench, users))
    figures: dict[str, Any] = {}
    watch = PresenceWatch(bench)
    first = [_job(Departure, bench, options, users[:half], number) for number in range(options.listeners)]
    second = [
        _job(Connect, bench, options, users[half:], number, 10 * options.listeners)
        for number in range(options.listeners)
    ]
    meter = CpuMeter(bench.pids)
    meter.begin()
    with ExitStack() as stack:
        stack.callback(watch.close)
        stack.enter_context(Fleet([_watchers(bench, users)], options.timeout)).wait_ready()
        with watch.measuring("arrival", half, figures):
            fleet = stack.enter_context(Fleet([*first, *second], options.timeout))
            fleet.wait_ready()
            figures["arrival_connected_after_s"] = watch.elapsed_s()
            watch.wait_true(set(users[:half]), options.timeout)
        with watch.measuring("change", options.sockets, figures):
            fleet.run(0.0, 0.0, CpuMeter({}))
            watch.wait_true(set(users[half:]), options.timeout)
        meter.end()
        tally = fleet.collect([])
    figures["change_connected_after_s"] = round(tally.extra["connect_s"], 1)
    for name in ("arrival", "change"):  # what the system needs beyond the load generator's own opening of sockets
        late_s = figures[f"{name}_true_after_s"] - figures[f"{name}_connected_after_s"]
        figures[f"{name}_true_after_last_connected_s"] = round(late_s, 1)
    settings = {"sockets": options.sockets, "gateways": GATEWAYS}
    return ScenarioOutcome("presence", "realtime", settings, tally, None, meter.used_s, figures)


def _job(
    kind: Callable[..., Any], bench: Bench, options: Namespace, users: list[str], number: int, step: int = 0
) -> Any:
    """Return one of the jobs that share these users; each connects from addresses of its own."""
    dialects = [
        Realtime(user, [{"channel": "community", "communityId": "storm"}])
        for user in users[number :: options.listeners]
    ]
    name = f"{kind.__name__.lower()} {number}"
    concurrency = options.concurrency // options.listeners
    return kind(name, bench.host, bench.port, dialects, 2 + 10 * number + step, concurrency=concurrency)


def _watchers(bench: Bench, users: list[str]) -> Departure:
    """Return a job that subscribes a socket to every room, and stays until the end."""
    rooms = sorted({room_id for number in range(len(users)) for room_id in (_room_of(number), _large_room_of(number))})
    dialects = [Realtime(f"watcher-{room}", [{"channel": "chatroom", "chatroomId": room}]) for room in rooms]
    return Departure("watchers", bench.host, bench.port, dialects, first_address=100)


def _room_of(number: int) -> str:
    return f"room_{number // ROOM_SIZE:026d}"


def _large_room_of(number: int) -> str:
    return f"room_L{number // LARGE_ROOM_SIZE:025d}"


async def _make_rooms(bench: Bench, users: list[str]) -> None:
    """Write the rooms and memberships, which 20,000 joins over REST would make in minutes."""
    members: dict[str, list[str]] = {}
    for number, user in enumerate(users):
        members.setdefault(_room_of(number), []).append(user)
        members.setdefault(_large_room_of(number), []).append(user)
    entries = bench.local.entries()
    mongo = Mongo(entries["MONGODB_URI"], entries["MONGODB_DATABASE"])
    store = RoomStore(mongo.database)
    for room_id, user_ids in members.items():
        await store.put_members([_created(room_id, user_ids)])
        room = Room(
            id=room_id,
            name="Storm",
            description="",
            type=RoomType.PUBLIC,
            created_by=user_ids[0],
            creator_id=user_ids[0],
            created_at_ms=AT_MS,
            active_at_ms=AT_MS,
            member_count=len(user_ids),
            rev=1,
        )
        await store.put_rooms([room])
    mongo.close()


def _created(room_id: str, user_ids: list[str]) -> LogEntry:
    return LogEntry(
        id=f"cmd_{room_id}",
        room_id=room_id,
        rev=1,
        kind=EntryKind.CREATED,
        term=1,
        author_id=user_ids[0],
        at_ms=AT_MS,
        last_seq=0,
        member_count=len(user_ids),
        members=tuple(MemberEffect(user_id=user, is_joined=True, joined_at_ms=AT_MS) for user in user_ids),
    )


class PresenceWatch:
    """Reads from the database who is online and announced, and what the database has done.

    Calls are those for presence beyond what an idle system makes.
    """

    def __init__(self, bench: Bench) -> None:
        entries = bench.local.entries()
        self._client = MongoClient[dict[str, Any]](entries["MONGODB_URI"])
        self._database = self._client[entries["MONGODB_DATABASE"]]
        self._metrics_url = entries["CHAT_SERVICE_1_ADMIN_URL"] + "/metrics"
        self._database_pid = bench.pids["database"]
        self._begun_s = 0.0
        begun = self._calls()
        time.sleep(IDLE_MEASURED_S)
        self._idle_calls_per_s = (self._calls() - begun) / IDLE_MEASURED_S

    def close(self) -> None:
        """Close the connection to the database."""
        self._client.close()

    def elapsed_s(self) -> float:
        """Return the seconds since the measurement began."""
        return round(time.monotonic() - self._begun_s, 1)

    @contextmanager
    def measuring(self, name: str, users: int, figures: dict[str, Any]) -> Iterator[None]:
        """Add the seconds and calls of the block, and the seconds until the database is idle after it."""
        self._begun_s = time.monotonic()
        calls, used_s = self._calls(), cpu_s(self._database_pid)
        yield
        figures[f"{name}_true_after_s"] = self.elapsed_s()
        while not is_idle(self._database_pid, IDLE_SHARE):
            pass
        figures[f"{name}_database_idle_after_s"] = self.elapsed_s()
        figures[f"{name}_database_cpu_s"] = round(cpu_s(self._database_pid) - used_s, 1)
        made = self._calls() - calls - self.elapsed_s() * self._idle_calls_per_s
        figures[f"{name}_calls_per_100_users"] = round(made * 100 / users, 2)

    def wait_true(self, online: set[str], timeout_s: float) -> None:
        """Wait until exactly these users are online, and their rooms know. Raises LoadFailed in time."""
        while time.monotonic() - self._begun_s < timeout_s:
            time.sleep(POLL_S)
            if self._is_true(online):
                return
        raise LoadFailed("presence is not true in time")

    def _is_true(self, online: set[str]) -> bool:
        presence = self._database["presence"]
        if presence.find_one({"unsettledAtMs": {"$gt": 0}}, {"_id": 1}) is not None:
            return False
        found = presence.find({}, {"nodes": 1, "toldOnline": 1}, batch_size=len(online) * 2)
        announced = {document["_id"] for document in found if document["nodes"] and document["toldOnline"]}
        return {user_id for user_id in announced if user_id.startswith("user-")} == online

    def _calls(self) -> float:
        """Return the database calls of chat_service on collections of presence."""
        collections = ("presence", "nodes", "room_members", "room_presence", "room_records")
        return sum(scrape.value(self._metrics_url, "mongo_seconds_count", collection=name) for name in collections)
