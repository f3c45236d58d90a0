"""Sockets of members of hundreds of rooms, all with messages: what the channel `activity` costs the gateway.

The same load runs twice, on the same sockets but for their subscription: first a community in which nothing happens,
then `activity`. The difference in CPU time is the figure.
"""

import asyncio
from argparse import Namespace
from collections.abc import Mapping, Sequence

from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect
from chat_service.storage.room_store import RoomStore
from shared.mongo import Mongo
from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.jobs.chat import ChatLoad, User
from tests.bench.processes import CpuMeter
from tests.bench.report import ScenarioOutcome
from tests.bench.system import Bench
from tests.support import scrape

QUIET = {"channel": "community", "communityId": "quiet"}
ACTIVITY = {"channel": "activity"}
JOIN_CONCURRENCY = 4  # each answer holds the counts of hundreds of rooms


def run(options: Namespace) -> ScenarioOutcome:
    """Measure the CPU time of all processes without `activity` and with it."""
    with system.running() as bench:
        return on(bench, options)


def on(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Run on a system that is already running."""
    rooms = bench.rooms(options.senders)
    followers = [f"follower-{number}" for number in range(options.sockets)]
    asyncio.run(_add_members(bench, rooms, followers))
    without = _measure(bench, options, rooms, followers, QUIET)
    outcome = _measure(bench, options, rooms, followers, ACTIVITY)
    more = {name: outcome.cpu_s[name] - used for name, used in without.cpu_s.items() if name in outcome.cpu_s}
    gateway = sum(used for name, used in more.items() if name.startswith("gateway"))
    outcome.figures |= {
        "gateway_cores_without": _gateway_cores(without, options),
        "gateway_cores_with": _gateway_cores(outcome, options),
        "gateway_cores_more": round(gateway / options.seconds, 3),
    }
    return outcome


def _measure(
    bench: Bench, options: Namespace, rooms: Sequence[str], followers: Sequence[str], subscription: Mapping[str, object]
) -> ScenarioOutcome:
    senders = [User(f"chatter-{number}", (room,), (room,)) for number, room in enumerate(rooms)]
    listening = [User(user_id, more=(dict(subscription),), timed=False) for user_id in followers]
    jobs = [
        ChatLoad("chatters", bench.host, bench.port, senders, options.rate, options.size),
        ChatLoad("followers", bench.host, bench.port, listening, first_address=60, concurrency=JOIN_CONCURRENCY),
    ]
    with Fleet(jobs, options.timeout) as fleet:
        fleet.wait_ready()
        meter = CpuMeter(bench.pids)
        before = _written(bench)
        window = fleet.run(options.seconds, options.warmup, meter)
        after = _written(bench)
        tally = fleet.collect(["chatters"])
    seconds = options.seconds + options.warmup
    figures = {
        "frames_per_s_and_socket": round((after[0] - before[0]) / seconds / options.sockets, 2),
        "megabytes_per_s": round((after[1] - before[1]) / seconds / 1e6, 1),
    }
    settings = {"sockets": options.sockets, "rooms": len(rooms), "rate": options.rate, "size": options.size}
    return ScenarioOutcome("activity", "realtime", settings, tally, window, meter.used_s, figures)


def _written(bench: Bench) -> list[float]:
    """Return how many frames of the channel the gateway has written, and their bytes."""
    url = bench.local.entries()["GATEWAY_1_ADMIN_URL"] + "/metrics"
    return [scrape.value(url, f"gateway_{name}_out_total", way="activity") for name in ("frames", "bytes")]


def _gateway_cores(outcome: ScenarioOutcome, options: Namespace) -> float:
    used = sum(used for name, used in outcome.cpu_s.items() if name.startswith("gateway"))
    return float(round(used / options.seconds, 3))


async def _add_members(bench: Bench, rooms: Sequence[str], user_ids: Sequence[str]) -> None:
    """Write the memberships, which half a million joins over REST would make in hours."""
    entries = bench.local.entries()
    mongo = Mongo(entries["MONGODB_URI"], entries["MONGODB_DATABASE"], timeout_s=60.0)
    store = RoomStore(mongo.database)
    members = tuple(MemberEffect(user_id=user_id, is_joined=True, joined_at_ms=1) for user_id in user_ids)
    for room_id in rooms:
        entry = LogEntry(
            id=f"cmd_{room_id}",
            room_id=room_id,
            rev=1,
            kind=EntryKind.CREATED,
            term=1,
            author_id="load-operator",
            at_ms=1,
            last_seq=0,
            member_count=len(members),
            members=members,
        )
        await store.put_members([entry])
    mongo.close()
