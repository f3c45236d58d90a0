"""Scale gateways behind HAProxy while clients chat: `make scale-demo`.

Two gateways run under load. A third is added and half as many clients again connect. Then the first gateway is removed;
its clients reconnect elsewhere and resume. In the end, every acknowledged message must be in the history once, and
every socket must have received every message of its rooms once, in order. Prints the counts; exits with 1 if anything
was lost, repeated or reordered.
"""

import argparse
import asyncio
from collections import Counter
from pathlib import Path

from tests.chaos.settle import history
from tests.operations.stage import Stage, demonstrate, staged
from tests.operations.trader import Trader
from tests.operations.verdict import message_faults, until_delivered
from tests.support.local_system import LocalSystem


async def play(stage: Stage, arguments: argparse.Namespace) -> float:
    """Run the scenes and return the seconds that the removed gateway took to drain."""
    first, second, third = stage.gateways
    await stage.add(second)
    await stage.come(arguments.clients)
    stage.show("two gateways")
    stop = asyncio.Event()
    talking = stage.tasks.create_task(stage.talk(arguments.rate, stop))
    await asyncio.sleep(arguments.seconds)
    stage.show("under load")
    await stage.add(third)
    await stage.come(arguments.clients // 2)
    stage.show(f"{third.name} added, more clients")
    await asyncio.sleep(arguments.seconds)
    left_after_s = await stage.scale_away(first)
    await stage.all_connected()
    stage.show(f"{first.name} scaled away")
    await asyncio.sleep(arguments.seconds)
    stop.set()
    await talking
    return left_after_s


async def run(arguments: argparse.Namespace, directory: Path, system: LocalSystem) -> int:
    """Run once and return the number of faults."""
    async with staged(directory, system, 3, arguments.rooms) as stage:
        left_after_s = await play(stage, arguments)
        histories = {room: [item.seq for item in await history(stage.operator, room)] for room in stage.rooms}
        await until_delivered(stage.traders, histories)
    return report(stage.traders, histories, left_after_s)


def report(traders: list[Trader], histories: dict[str, list[int]], left_after_s: float) -> int:
    """Print the counts and return the number of faults."""
    faults = message_faults(traders, histories)
    closes = Counter(code for trader in traders for code in trader.closes)
    counts = {
        "clients": len(traders),
        "messages acked": sum(len(trader.acked) for trader in traders),
        "deliveries": sum(len(seqs) for trader in traders for seqs in trader.seqs.values()),
        "sockets moved, by close code": dict(closes),
        "seconds until the gateway had left": round(left_after_s, 1),
    }
    for name, count in {**counts, **faults}.items():
        print(f"  {name:42} {count}")
    unexpected = sum(count for code, count in closes.items() if code != 1012)
    return sum(faults.values()) + unexpected


if __name__ == "__main__":
    demonstrate(run, __doc__, seconds=8, clients=300, rooms=30, rate=60)
