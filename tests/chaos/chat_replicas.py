"""Kill chat_service replicas with -9 under a mixed load, and check every message: `make chaos-chat`.

Two gateways and two replicas; one replica is killed every few seconds (the supervisor starts it again). Senders resend
with the same clientMessageId until acked. Then: every acked message is in the history once, and every subscriber got
every message of its rooms once, in seq order. Prints the counts; exits with 1 if anything is lost, repeated or
out of order.
"""

import argparse
import asyncio
import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.live_client import Caller
from tests.support.local_system import LocalSystem
from tests.support.services import free_port
from tests.support.tokens import SECRET, mint

ANSWER_TIMEOUT_S = 8.0
SETTLE_TIMEOUT_S = 60.0


class Subscriber:
    """A socket on all rooms: keeps what came, sends, and resends until acked."""

    def __init__(self, name: str, url: str, rooms: list[str]) -> None:
        self.name = name
        self.url = url
        self.rooms = rooms
        self.seqs: dict[str, list[int]] = {room: [] for room in rooms}
        self.acked: dict[str, tuple[str, int]] = {}
        self.latencies_s: list[float] = []
        self.resent = 0
        self._answers: dict[str, asyncio.Future[Mapping[str, Any]]] = {}

    async def run(self, http: aiohttp.ClientSession, ready: asyncio.Event) -> None:
        """Read until cancelled."""
        async with http.ws_connect(f"{self.url}/v1/live") as ws:
            self._ws = ws
            subscriptions = [{"channel": "chatroom", "chatroomId": room} for room in self.rooms]
            await ws.send_json({"type": "auth", "token": mint(self.name), "subscriptions": subscriptions})
            waiting = len(self.rooms)
            async for message in ws:
                frame = message.json()
                match frame["type"]:
                    case "subscribed":
                        waiting -= 1
                        if not waiting:
                            ready.set()
                    case "chat:message":
                        self.seqs[frame["data"]["chatroomId"]].append(frame["data"]["seq"])
                    case "chat:ack" | "error" if frame.get("id") in self._answers:
                        answer = self._answers[frame["id"]]
                        if not answer.done():
                            answer.set_result(frame)
            raise ConnectionError(f"{self.name} was closed with {ws.close_code}")

    async def send(self, key: str, room: str) -> None:
        """Send one message until it is acked."""
        started_s = time.monotonic()
        for attempt in itertools.count():
            self.resent += attempt > 0
            id_ = f"{key}#{attempt}"
            answer = self._answers[id_] = asyncio.get_running_loop().create_future()
            frame = {"type": "chat:send", "chatroomId": room, "message": key, "clientMessageId": key, "id": id_}
            await self._ws.send_json(frame)
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    result = await answer
            except TimeoutError:
                continue
            finally:
                del self._answers[id_]
            if result["type"] == "chat:ack":
                self.acked[key] = (room, result["data"]["seq"])
                self.latencies_s.append(time.monotonic() - started_s)
                return
            assert result["data"]["retryable"], result
            await asyncio.sleep(0.2)

    async def fidget(self, room: str) -> None:
        """Type, mark as read, join or leave: what may fail while a replica is away, and must leave all counts right."""
        match random.randrange(4):
            case 0:
                await self._ws.send_json({"type": "chat:typing", "chatroomId": room, "isTyping": True})
            case 1:
                seq = max(self.seqs[room], default=0)
                await self._ws.send_json({"type": "chat:read", "chatroomId": room, "seq": seq})
            case 2:
                await Caller(self.url, self.name).call("POST", f"/v1/chatrooms/{room}/join")
            case _:
                await Caller(self.url, self.name).call("POST", f"/v1/chatrooms/{room}/leave")


async def load(subscribers: list[Subscriber], rooms: list[str], rate: float, until_s: float) -> None:
    """Send from random subscribers into random rooms, `rate` a second, until `until_s`; then await the last acks.

    Every tenth time somebody types, reads, joins or leaves as well.
    """
    async with asyncio.TaskGroup() as sending:
        for number in itertools.count():
            if time.monotonic() > until_s:
                return
            sender = random.choice(subscribers)
            sending.create_task(sender.send(f"m-{number}", random.choice(rooms)))
            if number % 10 == 0:
                sending.create_task(random.choice(subscribers).fidget(random.choice(rooms)))
            await asyncio.sleep(1 / rate)


async def miscounted(rest: Caller, rooms: list[str]) -> int:
    """Rooms whose memberCount is not the number of their members."""
    wrong = 0
    for room in rooms:
        members: list[Any] = []
        while page := await rest.data("GET", f"/v1/chatrooms/{room}/members?limit=100&page={len(members) // 100 + 1}"):
            members += page
            if len(page) < 100:
                break
        wrong += len(members) != (await rest.data("GET", f"/v1/chatrooms/{room}"))["memberCount"]
    return wrong


async def kill_replicas(system: LocalSystem, interval_s: float, until_s: float) -> int:
    """Kill one replica after another."""
    killed = 0
    while time.monotonic() + interval_s < until_s:
        await asyncio.sleep(interval_s)
        pid = int(system.entries()[f"CHAT_SERVICE_{killed % 2 + 1}_PID"])
        os.kill(pid, signal.SIGKILL)
        killed += 1
        print(f"  killed chat_service replica, pid {pid}", flush=True)
    return killed


async def history(rest: Caller, room: str) -> list[int]:
    """The seqs of a room's whole history, oldest first."""
    seqs: list[int] = []
    after = 0
    while True:
        page = await rest.data("GET", f"/v1/chatrooms/{room}/messages?limit=100&after={after}")
        if not page:
            return seqs
        seqs += sorted(message["seq"] for message in page)
        after = seqs[-1]


async def run(arguments: argparse.Namespace, system: LocalSystem) -> int:
    """One run; returns the number of faults."""
    url = system.entries()["GATEWAY_URL"]
    rest = Caller(url, "operator")
    rooms = [await rest.create_room(f"Room {number}") for number in range(arguments.rooms)]
    subscribers = [Subscriber(f"user-{number}", url, rooms) for number in range(arguments.clients)]
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        readies = [asyncio.Event() for _ in subscribers]
        reading = [tasks.create_task(one.run(http, ready)) for one, ready in zip(subscribers, readies, strict=True)]
        for ready in readies:
            async with asyncio.timeout(30):
                await ready.wait()
        until_s = time.monotonic() + arguments.seconds
        sending = tasks.create_task(load(subscribers, rooms, arguments.rate, until_s))
        killed = await kill_replicas(system, arguments.interval, until_s)
        await sending
        histories = {room: await history(rest, room) for room in rooms}
        wrong_counts = await miscounted(rest, rooms)
        await settle(subscribers, histories)
        for task in reading:
            task.cancel()
    return report(subscribers, histories, killed, wrong_counts)


async def settle(subscribers: list[Subscriber], histories: dict[str, list[int]]) -> None:
    """Wait until everyone has everything, or for a minute."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if all(len(one.seqs[room]) >= len(seqs) for one in subscribers for room, seqs in histories.items()):
            return
        await asyncio.sleep(0.1)


def report(subscribers: list[Subscriber], histories: dict[str, list[int]], killed: int, wrong_counts: int) -> int:
    """Print the counts; returns the faults."""
    acked = {key: place for one in subscribers for key, place in one.acked.items()}
    gaps = sum(seqs != list(range(1, len(seqs) + 1)) for seqs in histories.values())
    unstored = sum(seq not in set(histories[room]) for room, seq in acked.values())
    doubled = len(acked) - len(set(acked.values()))
    lost = repeated = disordered = 0
    for one in subscribers:
        for room, seqs in histories.items():
            got = one.seqs[room]
            lost += len(set(seqs) - set(got))
            repeated += len(got) - len(set(got))
            disordered += sum(later <= earlier for earlier, later in itertools.pairwise(got))
    latencies = sorted(time_s for one in subscribers for time_s in one.latencies_s)
    counts = {
        "replicas killed": killed,
        "messages acked": len(acked),
        "messages stored": sum(map(len, histories.values())),
        "deliveries": sum(len(seqs) for one in subscribers for seqs in one.seqs.values()),
        "sends repeated by clients": sum(one.resent for one in subscribers),
        "ack p50 ms": round(statistics.median(latencies) * 1000, 1),
        "ack p99 ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
        "acked but not stored": unstored,
        "acked under one seq twice": doubled,
        "rooms with a gap in seq": gaps,
        "deliveries lost": lost,
        "deliveries repeated": repeated,
        "deliveries out of order": disordered,
        "rooms with a wrong memberCount": wrong_counts,
    }
    for name, count in counts.items():
        print(f"  {name:30} {count}")
    return unstored + doubled + gaps + lost + repeated + disordered + wrong_counts


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--interval", type=float, default=5, help="seconds between two kills")
    parser.add_argument("--rooms", type=int, default=12)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100, help="messages a second")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    settings = {
        "GATEWAYS": "2",
        "CHAT_SERVICES": "2",
        "GATEWAY_PORT": str(free_port()),
        "JWT_SECRET": SECRET,
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "100000",
    }
    with tempfile.TemporaryDirectory() as directory, LocalSystem(Path(directory), settings) as system:
        faults = asyncio.run(run(arguments, system))
        print(f"faults: {faults}")
        if faults:
            print((Path(directory) / "supervisor.out").read_text()[-20_000:], file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
