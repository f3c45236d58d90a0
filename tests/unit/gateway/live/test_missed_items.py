"""Which resumes recover, and what they replay."""

import asyncio
from contextlib import ExitStack
from typing import cast

import pytest

from gateway.backend import Backend
from gateway.fanout.channel import Channel
from gateway.fanout.flush_schedule import FlushSchedule
from gateway.fanout.stream import Attention
from gateway.fanout.wire import text_frame
from gateway.live.missed_items import REVS_READ_MAX, MissedItems, RoomAnswer
from gateway.live.socket import Socket
from shared.byte_budget import ByteBudget
from shared.commands.chat import RoomHead
from shared.commands.chat_queries import EntryDeliveries, ReplayedEntries
from shared.commands.command import REPLAY_MAX, Caller
from shared.protocol.client_frames import ChatroomTarget


class Log:
    """A room whose first `voids` entries are not for clients; the others are messages by new members."""

    def __init__(self, voids: int, messages: int) -> None:
        self.voids, self.messages = voids, messages
        self.reads = 0

    async def subscribe_room(self, _caller: Caller, _room_id: str) -> RoomHead:
        return RoomHead(seq=self.messages, rev=self.voids + self.messages, active_now=1)

    async def replay_entries(self, _caller: Caller, _room_id: str, after: int, through: int) -> ReplayedEntries:
        self.reads += 1
        revs = range(after + 1, min(through, self.voids + self.messages) + 1)
        return ReplayedEntries(
            entries=tuple(
                EntryDeliveries(rev=rev, frame="")
                if rev <= self.voids
                else EntryDeliveries(rev=rev, frame=f"message {rev}", joined=(f"joined {rev}",))
                for rev in revs
            )
        )


class Resuming:
    user_id = "ann"
    caller = Caller(user_id="ann")


async def resume(log: Log, since_rev: int) -> RoomAnswer:
    missed = MissedItems(cast(Backend, log), ByteBudget("test", 2**26, 2**23), asyncio.create_task)
    channel = Channel("room:r", FlushSchedule(), Attention())
    target = ChatroomTarget(chatroom_id="r", since_rev=since_rev)
    with ExitStack() as held:
        return await missed.of_room(cast(Socket, Resuming()), target, channel, held)


@pytest.mark.parametrize(("messages", "recovered"), [(REPLAY_MAX, True), (REPLAY_MAX + 1, False)])
async def test_only_entries_for_clients_count(messages: int, recovered: bool) -> None:
    answer = await resume(Log(voids=REPLAY_MAX, messages=messages), since_rev=0)
    assert answer.recovered is recovered
    assert len(answer.missed) == (2 * messages if recovered else 0)


async def test_new_members_are_shown_before_their_messages() -> None:
    answer = await resume(Log(voids=1, messages=2), since_rev=0)
    assert answer.missed == [text_frame(text) for text in (b"joined 2", b"message 2", b"joined 3", b"message 3")]


@pytest.mark.parametrize("log", [Log(voids=0, messages=1001), Log(voids=REVS_READ_MAX, messages=1)])
async def test_hopeless_resume_reads_nothing(log: Log) -> None:
    assert not (await resume(log, since_rev=0)).recovered
    assert log.reads == 0
