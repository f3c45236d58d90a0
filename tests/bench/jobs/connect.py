"""Connections as fast as the server accepts them; after the death of their gateway, all of them again on another."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tests.bench.client import BenchSocket, Dialect
from tests.bench.crowd import ConnectOutcome, Crowd
from tests.bench.dialects import Realtime
from tests.bench.marks import now_us
from tests.bench.tally import Tally
from tests.bench.worker import JobPipe

RETRY_FIRST_S = 0.5  # like RealtimeClient: doubled each time, with jitter
RETRY_MAX_S = 8.0


@dataclass
class Connect:
    """Opens one socket per entry of `dialects`, `concurrency` at a time, within the window."""

    name: str
    host: str
    port: int
    dialects: Sequence[Dialect]
    first_address: int = 2
    concurrency: int = 100

    async def run(self, link: JobPipe) -> Tally:
        """Connect when the window begins; `connect_s` is the time for all."""
        crowd = Crowd(self.host, self.port, self.first_address, self.concurrency)
        link.ready(f"{len(self.dialects)} to connect")
        await link.window()
        begun_us = now_us()
        opening = asyncio.create_task(crowd.open(self.dialects))
        while not opening.done():
            link.counts["connected"] = len(crowd.clients)
            await asyncio.wait({opening}, timeout=0.2)
        await opening
        taken_s = (now_us() - begun_us) / 1e6
        await link.finish()
        crowd.leave()
        tally = Tally(answers=crowd.joining, refused=crowd.failed.total(), closed=crowd.failed)
        tally.received = len(crowd.clients)
        tally.extra["connect_s"] = taken_s
        tally.extra["turned_away"] = crowd.turned_away
        return tally


class _Seq(msgspec.Struct):
    seq: int
    recovered: bool = False


class _Subscribed(msgspec.Struct):
    type: str
    data: msgspec.Raw


@dataclass
class Resume:
    """Users of one room each. When their sockets are lost they reconnect to `then_port` with `since`."""

    name: str
    host: str
    port: int
    then_port: int
    users: Sequence[tuple[str, str]]  # (user id, room id)
    first_address: int = 2
    concurrency: int = 50

    async def run(self, link: JobPipe) -> Tally:
        """Join, lose every socket, reconnect. Latencies run from the loss to the last answer."""
        first = Crowd(self.host, self.port, self.first_address, self.concurrency)
        await first.open(_join(user, room, 0) for user, room in self.users)
        if first.failed:
            raise ConnectionError(f"not all joined: {dict(first.failed)}")
        link.counts["connected"] = len(first.clients)
        link.ready(f"{len(first.clients)} users")
        lost: asyncio.Queue[tuple[BenchSocket, int]] = asyncio.Queue()
        for client in first.clients:
            client.on_lost = lambda client: lost.put_nowait((client, now_us()))
        await link.window()
        back = Crowd(self.host, self.then_port, self.first_address + 20, self.concurrency)
        tally = Tally()
        rooms = dict(self.users)
        async with asyncio.TaskGroup() as tasks:
            for _ in first.clients:
                client, lost_us = await lost.get()
                tasks.create_task(self._return(client, rooms, lost_us, back, tally))
                link.counts["back"] = len(back.clients)
        await link.finish()
        link.counts["back"] = len(back.clients)
        back.leave()
        tally.received = len(back.clients)
        return tally

    async def _return(
        self, client: BenchSocket, rooms: dict[str, str], lost_us: int, back: Crowd, tally: Tally
    ) -> None:
        assert isinstance(client.dialect, Realtime)
        user_id = client.dialect.user_id
        pause_s = RETRY_FIRST_S
        while True:
            await asyncio.sleep(random.uniform(0, pause_s))
            dialect = _join(user_id, rooms[user_id], _seq(client.dialect))
            if await back.open_one(dialect) is ConnectOutcome.LISTENS:
                break
            pause_s = min(pause_s * 2, RETRY_MAX_S)
        tally.answers.add(now_us() - lost_us)
        tally.lost += not _recovered(dialect)


def _join(user_id: str, room: str, since: int) -> Realtime:
    return Realtime(user_id, [{"channel": "chatroom", "chatroomId": room, "since": since}])


def _subscribed(dialect: Realtime) -> _Seq:
    for answer in dialect.answers:
        frame = msgspec.json.decode(answer, type=_Subscribed)
        if frame.type == "subscribed":
            return msgspec.json.decode(frame.data, type=_Seq)
    raise ValueError("no `subscribed`")


def _seq(dialect: Realtime) -> int:
    return _subscribed(dialect).seq


def _recovered(dialect: Realtime) -> bool:
    return _subscribed(dialect).recovered
