"""The time for which rooms of a killed or frozen chat_service replica accept no messages: `make failover`.

Two replicas run; one sender for each room sends every 25 ms, without waiting for answers. One replica is killed with
SIGKILL, or frozen with SIGSTOP for longer than its lease. The pause of a room is the longest time between two acks
around the fault. Prints the longest pause of any room for each repetition; exits with 1 if a limit is exceeded.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

from tests.support.live_client import LiveClient, RestClient
from tests.support.local_system import LocalSystem
from tests.support.tokens import SECRET
from tests.support.waiting import until, until_async

SETTINGS = {
    "CHAT_SERVICES": "2",
    "GATEWAY_HOST": "127.0.0.1",
    "JWT_SECRET": SECRET,
    "RATE_LIMIT_MESSAGES_PER_MINUTE": "1000000",
}
ROOMS = 32
SEND_INTERVAL_S = 0.025
QUIET_S = 3.0
FROZEN_S = 12.0
BACK_TIMEOUT_S = 60.0
ADMIN_TIMEOUT_S = 2.0
LIMITS_S = {signal.SIGKILL: 1.0, signal.SIGSTOP: 6.0}


class Sender:
    """Sends to one room and records when each message was acknowledged."""

    def __init__(self, client: LiveClient, room: str) -> None:
        self.acked_at_s: list[float] = []
        self._client = client
        self._room = room

    async def send(self) -> None:
        """Send until cancelled."""
        number = 0
        while True:
            number += 1
            await self._client.send("chat:send", chatroomId=self._room, message="x", clientMessageId=f"m{number}")
            await asyncio.sleep(SEND_INTERVAL_S)

    async def listen(self) -> None:
        """Note acks until cancelled."""
        while True:
            await self._client.data("chat:ack")
            self.acked_at_s.append(time.monotonic())

    def pause_s(self, since_s: float) -> float:
        """Return the longest time without an ack since then."""
        times = [since_s, *(at_s for at_s in self.acked_at_s if at_s >= since_s), time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(times))


async def fault(system: LocalSystem, number: int, kind: signal.Signals, senders: list[Sender]) -> float:
    """Harm a replica and return the longest pause of any room, once all rooms take messages again."""
    pid = pid_of(system, number)
    begun_s = time.monotonic()
    os.kill(pid, kind)
    await asyncio.sleep(FROZEN_S if kind == signal.SIGSTOP else QUIET_S)
    pause_s = max(sender.pause_s(begun_s) for sender in senders)
    if kind == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    else:
        await until(lambda: pid_of(system, number) not in (0, pid), BACK_TIMEOUT_S)
    await all_ready(system)
    return pause_s


def pid_of(system: LocalSystem, number: int) -> int:
    """Return the process id of a replica, 0 while it is being started again."""
    return int(system.entries().get(f"CHAT_SERVICE_{number}_PID", 0))


async def all_ready(system: LocalSystem) -> None:
    """Wait until both replicas own their share, and a moment longer."""

    def are_ready() -> bool:
        urls = [system.entries().get(f"CHAT_SERVICE_{number}_ADMIN_URL") for number in (1, 2)]
        return all(url is not None and is_ready(url) for url in urls)

    await until_async(lambda: asyncio.to_thread(are_ready), bool, BACK_TIMEOUT_S)
    await asyncio.sleep(QUIET_S)


def is_ready(admin_url: str) -> bool:
    """Return whether a process answers that it is ready."""
    try:
        with urllib.request.urlopen(f"{admin_url}/readyz", timeout=ADMIN_TIMEOUT_S):
            return True
    except OSError:
        return False


async def run(arguments: argparse.Namespace, system: LocalSystem) -> int:
    """Inject the faults, print the pauses, and return how many kinds exceeded their limit."""
    url = system.entries()["GATEWAY_URL"]
    rooms = [await RestClient(url, "operator").create_room() for _ in range(ROOMS)]
    clients = [await LiveClient.as_user(url, f"sender-{number}") for number in range(ROOMS)]
    exceeded = 0
    async with asyncio.TaskGroup() as tasks:
        senders = [Sender(*pair) for pair in zip(clients, rooms, strict=True)]
        work = [tasks.create_task(job) for sender in senders for job in (sender.send(), sender.listen())]
        await all_ready(system)
        for kind, limit_s in LIMITS_S.items():
            repeats = range(arguments.repeats)
            pauses = [await fault(system, 1 + number % 2, kind, senders) for number in repeats]
            listed = ", ".join(f"{pause_s:.2f}" for pause_s in pauses)
            print(f"{kind.name}: median {statistics.median(pauses):.2f} s, limit {limit_s} s, each: {listed}")
            exceeded += statistics.median(pauses) > limit_s
        for task in work:
            task.cancel()
    await asyncio.gather(*(client.close() for client in clients))
    return exceeded


def main() -> None:
    """Run on a separate system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of each fault")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalSystem(Path(name), SETTINGS) as system:
        sys.exit(1 if asyncio.run(run(arguments, system)) else 0)


if __name__ == "__main__":
    main()
