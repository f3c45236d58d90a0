"""A crowd that reacts to one message within a second: the entries that it makes, and the events that everybody gets.

The sockets live in this process. Each user listens to the room and reacts once, evenly spread over a second.
"""

import asyncio
from argparse import Namespace

import orjson

from chat_service.rooms.log import EntryKind
from shared.mongo import Mongo
from tests.bench import system
from tests.bench.client import BenchSocket
from tests.bench.crowd import Crowd
from tests.bench.dialects import Realtime
from tests.bench.jobs.pace import paced
from tests.bench.marks import now_us
from tests.bench.processes import CpuMeter
from tests.bench.report import ScenarioOutcome
from tests.bench.system import Bench
from tests.bench.tally import MeasureWindow, Tally
from tests.bench.wire import BenchFrame
from tests.support.live_client import RestClient
from tests.support.waiting import until

AUTHOR = "load-operator"
EMOJI = "👍"
CONCURRENCY = 50
FIRST_ADDRESS = 40
SPREAD_US = 1_000_000
ANSWERED_WITHIN_S = 30.0


class _Reactors:
    """The sockets of the crowd, and what they received."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.counts: dict[BenchSocket, int] = {}  # the newest count that each socket was shown

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Count an answer or an event."""
        if frame.payload.startswith(b'{"type":"chat:ack"'):
            self.tally.acked += 1
            self.tally.answers.add(now_us() - orjson.loads(frame.payload)["id"])
        elif frame.payload.startswith(b'{"type":"chat:reaction"'):
            self.tally.received += 1
            (shown,) = orjson.loads(frame.payload)["data"]["reactions"]
            self.counts[client] = shown["count"]
        elif frame.payload.startswith(b'{"type":"error"'):
            self.tally.refused += 1


def run(options: Namespace) -> ScenarioOutcome:
    """Measure a crowd's reactions to one message."""
    with system.running() as bench:
        return on(bench, options)


def on(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Run on a system that is already running."""
    (room,) = bench.rooms(1)
    return asyncio.run(_measured(bench, room, options.sockets))


async def _measured(bench: Bench, room: str, users: int) -> ScenarioOutcome:
    author = RestClient(bench.url, AUTHOR)
    sent = await author.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "all in"})
    crowd = Crowd(bench.host, bench.port, FIRST_ADDRESS, CONCURRENCY)
    entry = {"channel": "chatroom", "chatroomId": room}
    await crowd.open(Realtime(f"reactor-{number}", [entry]) for number in range(users))
    tally = Tally()
    reactors = _Reactors(tally)
    for client in crowd.clients:
        client.on_frame = reactors.take
    meter = CpuMeter(bench.pids)
    meter.begin()
    begin_us = now_us()
    window = MeasureWindow(begin_us, begin_us, begin_us + SPREAD_US)
    await _react(crowd, window, room, sent["id"], tally)
    await until(lambda: tally.acked + tally.refused >= tally.sent, ANSWERED_WITHIN_S)
    await until(lambda: _have_all(reactors, crowd, tally.acked), ANSWERED_WITHIN_S)
    taken_s = (now_us() - begin_us) / 1e6
    meter.end()
    crowd.leave()
    tally.lost = (
        users - (await author.data("GET", f"/v1/chatrooms/{room}/messages/{sent['id']}"))["reactions"][0]["count"]
    )
    figures = {"entries": await _entries(bench, room), "events_per_socket": round(tally.received / users, 1)}
    figures["everybody_sees_all_after_s"] = round(taken_s, 2)
    return ScenarioOutcome("reactions", "realtime", {"users": users}, tally, window, meter.used_s, figures)


async def _react(crowd: Crowd, window: MeasureWindow, room: str, message_id: str, tally: Tally) -> None:
    waiting = iter(crowd.clients)
    frame = {"type": "chat:react", "chatroomId": room, "messageId": message_id, "emoji": EMOJI}
    async for count in paced(window, len(crowd.clients) * 1e6 / SPREAD_US):
        for _, client in zip(range(count), waiting, strict=False):  # in this order: `waiting` loses none
            client.send(orjson.dumps({**frame, "id": now_us()}))
            tally.sent += 1
    for client in waiting:
        client.send(orjson.dumps({**frame, "id": now_us()}))
        tally.sent += 1


def _have_all(reactors: _Reactors, crowd: Crowd, reactions: int) -> bool:
    return all(reactors.counts.get(client) == reactions for client in crowd.clients)


async def _entries(bench: Bench, room: str) -> int:
    """Return the number of reaction entries in the room's log."""
    settings = bench.local.entries()
    mongo = Mongo(settings["MONGODB_URI"], settings["MONGODB_DATABASE"])
    try:
        return int(await mongo.database["room_log"].count_documents({"roomId": room, "kind": EntryKind.REACTED}))
    finally:
        mongo.close()
