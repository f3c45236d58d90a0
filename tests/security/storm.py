"""A connection storm: thousands of clients connect at the same moment, while others chat.

    python -m tests.security.storm --clients 5000

Says how soon all were in, and the latency of the messages of those who were connected before: meanwhile, and while all
the thousands go again at the same moment. Each of them authenticates and resumes one room in one frame; who is refused
comes back after Retry-After.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import aiohttp
import uvloop

from tests.bench import system
from tests.bench.crowd import Crowd
from tests.bench.dialects import Realtime
from tests.support.live_client import LiveClient

WITNESSES = 20
INTERVAL_S = 0.05
CALM_S = 3.0
STORM_TIMEOUT_S = 60.0
ROOM_SIZE = 100


async def storm(channel: Connection, host: str, port: int, rooms: list[str], clients: int) -> None:
    """Connect all clients at once, report, and disconnect all at once on request."""
    crowd = Crowd(host, port, 50, concurrency=clients)
    dialects = [
        Realtime(f"comer-{number}", [{"channel": "chatroom", "chatroomId": rooms[number % len(rooms)], "since": 0}])
        for number in range(clients)
    ]
    begun_s = time.monotonic()
    while dialects and time.monotonic() - begun_s < STORM_TIMEOUT_S:
        before = set(crowd.clients)
        await crowd.open(dialects)
        arrived = {client.dialect for client in set(crowd.clients) - before}
        dialects = [Realtime(dialect.user_id, dialect.subscriptions) for dialect in dialects if dialect not in arrived]
        if dialects:
            await asyncio.sleep(1)
    taken_s = time.monotonic() - begun_s
    channel.send(
        {
            "connected": len(crowd.clients),
            "all_in_after_s": round(taken_s, 2),
            "refused": dict(crowd.failed),
            "lost": dict(crowd.closed),
        }
    )
    await asyncio.to_thread(channel.recv)
    crowd.leave()
    await asyncio.sleep(1)


def storm_process(channel: Connection, host: str, port: int, rooms: list[str], clients: int) -> None:
    """Run the storm in a separate process, so that its work is not attributed to the gateway."""
    channel.recv()
    uvloop.run(storm(channel, host, port, rooms, clients))


async def watch(url: str, admin_url: str, room: str, channel: Connection) -> dict[str, object]:
    """Chat among the witnesses: before the storm, until all are connected, and while all disconnect."""
    witnesses = [await LiveClient.as_user(url, f"witness-{number}") for number in range(WITNESSES)]
    for witness in witnesses:
        await witness.ask("subscribe", channel="chatroom", chatroomId=room)
    calm = await chat(witnesses, room, lambda since_s: since_s > CALM_S)
    channel.send("now")
    noting = asyncio.create_task(note_pace(admin_url))
    stormy = await chat(witnesses, room, lambda _: channel.poll())
    noting.cancel()
    result = channel.recv()
    channel.send("go")
    leaving = await chat(witnesses, room, lambda since_s: since_s > CALM_S)
    for witness in witnesses:
        await witness.close()
    return {"calm": calm, "storm": stormy, "leaving": leaving, "bound": await noting, **result}


async def note_pace(admin_url: str) -> tuple[int, int]:
    """Record the lowest and highest admission bound that the gateway reports, until cancelled."""
    least, greatest = 10**9, 0
    async with aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"{admin_url}/metrics") as response:
                    lines = (await response.text()).splitlines()
                bound = next(int(float(line.split()[1])) for line in lines if line.startswith("gateway_arriving_max"))
                least, greatest = min(least, bound), max(greatest, bound)
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                return least, greatest


async def chat(witnesses: list[LiveClient], room: str, is_over: Callable[[float], bool]) -> dict[str, float]:
    """Send a message every 50 ms; return the latencies of all witnesses in ms."""
    begun_s, latencies = time.monotonic(), [0.0]
    waiting: set[asyncio.Task[None]] = set()

    async def one(witness: LiveClient, text: str, sent_s: float) -> None:
        await witness.take(
            lambda frame: frame["type"] == "chat:message" and frame["data"]["message"] == text, timeout_s=30
        )
        latencies.append((time.monotonic() - sent_s) * 1000)

    number = 0
    while not is_over(time.monotonic() - begun_s):
        number += 1
        text = f"{begun_s}-{number}"
        sent_s = time.monotonic()
        await witnesses[0].send("chat:send", chatroomId=room, message=text)
        waiting |= {asyncio.create_task(one(witness, text, sent_s)) for witness in witnesses}
        await asyncio.sleep(INTERVAL_S)
    await asyncio.gather(*waiting)
    latencies.sort()
    return {f"p{share}": round(latencies[int((len(latencies) - 1) * share / 100)], 1) for share in (50, 99, 100)}


def main() -> None:
    """Run the storm on a separate system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with system.running() as bench:
        admin_url = bench.local.entries()["GATEWAY_ADMIN_URL"]
        rooms = bench.rooms(max(options.clients // ROOM_SIZE, 1) + 1)
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=storm_process, args=(theirs, bench.host, bench.port, rooms[1:], options.clients)
        )
        process.start()
        try:
            result = asyncio.run(watch(bench.url, admin_url, rooms[0], ours))
        finally:
            process.join(5)
            process.kill()
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
