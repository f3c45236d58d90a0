"""The relay and recovery when services refuse, are unavailable, or answer late."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from gateway.auth.revocations import RevocationListSync
from gateway.backend import Backend
from gateway.background import Spawn, background
from gateway.fanout import retries, stall, typing_expiry
from gateway.fanout.batch import Batch
from gateway.fanout.fan_out import FanOut
from gateway.fanout.recovery import LOST_FOR_MS
from gateway.fanout.retries import REFUSALS_MAX
from shared.bus.bus import Bus
from shared.bus.delivery import CONTROL_CHANNEL, ControlKind, Delivery, DeliveryKind, room_channel, user_channel
from shared.bus.private_queue import PrivateQueue
from shared.commands.chat import RoomHead
from shared.commands.chat_queries import (
    DirectMessagePosition,
    DirectRoom,
    EntryDeliveries,
    RecentDirectMessages,
    ReplayedEntries,
)
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal, Unavailable
from shared.protocol.server_frames import frame
from shared.times import now_ms
from tests.support.waiting import until

ROOM = room_channel("r")


class BodySink:
    """A socket that records its frames."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.session_id = f"sess_{user_id}"
        self.opened_ms = 0
        self.got: list[bytes] = []
        self.ended: list[str] = []

    def write(self, batch: Batch) -> None:
        self.got += [item.data[2:] for item in batch.items]

    def unsubscribed(self, channel: str) -> None:
        self.ended.append(channel)

    def close_for_resume(self) -> None:
        raise AssertionError("no socket is closed here")


class QuietBus:
    """A connected broker that delivers only the lines of the test."""

    def __init__(self) -> None:
        self.on_connected: list[Callable[[], Any]] = []
        self.on_disconnected: list[Callable[[], Any]] = []
        self.on_body: Callable[[bytes], None] = lambda _: None
        self.dropped: list[str] = []

    async def bind(self, *_: object) -> None:
        pass

    def drop_connection(self, reason: str) -> None:
        self.dropped.append(reason)


async def reconnect(bus: QuietBus) -> None:
    """Break the connection and restore it."""
    for hook in bus.on_disconnected:
        hook()
    for hook in bus.on_connected:
        await hook()


class ScriptedPartition:
    """Answers `subscribe_room` as scripted, by user."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[], RoomHead]] = {}
        self.asked: list[str] = []
        self.directs: Callable[[], RecentDirectMessages] = lambda: RecentDirectMessages(rooms=())
        self.directs_asked: list[tuple[tuple[str, ...], int]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_deleted = False

    async def subscribe_room(self, caller: Caller, _room_id: str) -> RoomHead:
        self.asked.append(caller.user_id)
        return self.answers[caller.user_id]()

    async def recent_direct_messages(
        self, _caller: Caller, user_ids: tuple[str, ...], since_ms: int
    ) -> RecentDirectMessages:
        self.directs_asked.append((user_ids, since_ms))
        await self.may_answer.wait()
        return self.directs()

    async def replay_entries(self, _caller: Caller, _room_id: str, after: int, through: int) -> ReplayedEntries:
        found = [EntryDeliveries(rev=rev, frame=str(rev)) for rev in range(after + 1, through + 1)]
        return ReplayedEntries(entries=tuple(found), is_deleted=self.is_deleted)


def refuse(error: Exception) -> Callable[[], RoomHead]:
    def answer() -> RoomHead:
        raise error

    return answer


class RunningFanOut:
    """The fan-out of a gateway between a broker and a partition of the test."""

    def __init__(self, spawn: Spawn) -> None:
        self.bus, self.partition = QuietBus(), ScriptedPartition()
        self.controls: list[str] = []
        queue = PrivateQueue("gateway", "node_1", {}, lambda _: None)
        self.answers: list[str] = []
        self.lines_lost_times = 0
        self.revocations_known = asyncio.Event()
        self.revocations_known.set()
        self.parts = FanOut(
            cast(Bus, self.bus),
            cast(Backend, self.partition),
            queue,
            spawn,
            self.on,
            self.on_answer,
            cast(RevocationListSync, self),
        )
        self.bus.on_body = self.parts.on_body
        self.hub, self.recovery = self.parts.hub, self.parts.recovery
        spawn(self.parts.run())

    def on(self, control: Delivery) -> None:
        if control.key == "bad":
            raise ValueError(control.key)
        self.controls.append(control.key)

    def lines_lost(self) -> None:
        self.lines_lost_times += 1

    async def loaded(self) -> None:
        await self.revocations_known.wait()

    def on_answer(self, answer: Delivery) -> None:
        self.answers.append(answer.channel)

    def listener(self, user_id: str) -> BodySink:
        sink = BodySink(user_id)
        self.hub.join(sink, ROOM).go_live(sink, 0, (), 0.0)
        return sink

    def user(self, user_id: str) -> BodySink:
        """Open a socket that listens only to its user's own channel."""
        sink, channel = BodySink(user_id), user_channel(user_id)
        self.hub.join(sink, channel).go_live_unordered(sink)
        return sink

    def bring_direct(self, position: int) -> None:
        """Deliver a direct message to user u."""
        self.bus.on_body(Delivery(user_channel("u"), DeliveryKind.DIRECT, position, "r", b"%d" % position).to_line())

    def bring(self, position: int) -> None:
        self.bus.on_body(Delivery(ROOM, DeliveryKind.ORDERED, position, "", b"%d" % position).to_line())


@asynccontextmanager
async def started() -> AsyncIterator[RunningFanOut]:
    async with asyncio.TaskGroup() as tasks:
        with background(tasks) as spawn:
            fixture = RunningFanOut(spawn)
            await until(lambda: bool(fixture.bus.on_connected))
            yield fixture


@pytest.fixture
async def fixture(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningFanOut]:
    monkeypatch.setattr(retries, "RETRY_FIRST_S", 0.001)
    async with started() as fixture:
        await reconnect(fixture.bus)
        yield fixture


async def test_recheck_shows_buffered_messages_only_to_users_with_access(fixture: RunningFanOut) -> None:
    member, stranger = fixture.listener("member"), fixture.listener("stranger")
    fixture.partition.answers = {
        "member": lambda: RoomHead(seq=1, rev=1, active_now=1),
        "stranger": refuse(Refusal.not_found("room")),
    }
    fixture.recovery.recheck("r")
    fixture.bring(1)
    await until(lambda: member.got == [b"1"])
    await until(lambda: stranger.ended == [ROOM])
    (told,) = stranger.got
    assert told == b'{"type":"unsubscribed","data":{"channel":"chatroom","chatroomId":"r","reason":"removed"}}'


async def test_recheck_of_a_deleted_room_closes_it(fixture: RunningFanOut) -> None:
    sink = fixture.listener("u")
    fixture.partition.answers["u"] = refuse(Refusal.not_found("room"))
    fixture.partition.is_deleted = True
    fixture.recovery.recheck("r")
    await until(lambda: fixture.controls == [ControlKind.ROOM_DELETED])
    assert sink.ended == [], "the control ends the subscription"


async def test_unavailable_partition_is_asked_until_it_answers(
    fixture: RunningFanOut,
) -> None:
    sink = fixture.listener("u")
    fixture.partition.answers["u"] = refuse(Unavailable("unavailable"))
    fixture.recovery.recheck("r")
    fixture.bring(1)
    await until(lambda: len(fixture.partition.asked) > REFUSALS_MAX + 1)
    assert sink.got == []
    fixture.partition.answers["u"] = lambda: RoomHead(seq=1, rev=1, active_now=1)
    await until(lambda: sink.got == [b"1"])


async def test_repeated_refusal_unsubscribes(fixture: RunningFanOut) -> None:
    sink = fixture.listener("u")
    fixture.partition.answers["u"] = refuse(Refusal(ErrorCode.INTERNAL, "an error"))
    fixture.recovery.recheck("r")
    await until(lambda: sink.ended == [ROOM])
    assert fixture.partition.asked == ["u"] * REFUSALS_MAX


async def test_recheck_stops_for_a_user_who_has_left(fixture: RunningFanOut) -> None:
    fixture.listener("other")
    sink = fixture.listener("u")
    fixture.partition.answers = {"other": refuse(Unavailable("unavailable")), "u": refuse(Unavailable("unavailable"))}
    fixture.recovery.recheck("r")
    await until(lambda: "u" in fixture.partition.asked)
    fixture.parts.membership.leave(sink, ROOM)
    fixture.partition.asked.clear()
    await until(lambda: len(fixture.partition.asked) >= 3)
    assert set(fixture.partition.asked) == {"other"}


async def test_only_the_newest_check_releases_a_room_after_reconnects(fixture: RunningFanOut) -> None:
    sink = fixture.listener("u")
    fixture.partition.answers["u"] = refuse(Unavailable("unavailable"))
    for _ in range(3):
        await reconnect(fixture.bus)
    fixture.bring(1)
    await until(lambda: len(fixture.partition.asked) >= 3)
    assert sink.got == []
    fixture.partition.answers["u"] = lambda: RoomHead(seq=1, rev=1, active_now=1)
    await until(lambda: sink.got == [b"1"])


async def test_nothing_is_shown_after_reconnect_before_revocations_are_compared(fixture: RunningFanOut) -> None:
    sink = fixture.listener("u")
    fixture.partition.answers["u"] = lambda: RoomHead(seq=1, rev=1, active_now=1)
    fixture.revocations_known.clear()
    await reconnect(fixture.bus)
    fixture.bring(1)
    await asyncio.sleep(0.05)
    assert (fixture.partition.asked, sink.got) == ([], [])
    fixture.revocations_known.set()
    await until(lambda: sink.got == [b"1"])


async def test_thawed_gateway_shows_nothing_of_its_old_connection(
    fixture: RunningFanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = fixture.listener("u")
    fixture.partition.answers["u"] = lambda: RoomHead(seq=1, rev=1, active_now=1)
    monkeypatch.setattr(stall, "STALL_S", -1.0)
    fixture.bring(1)
    monkeypatch.undo()
    await asyncio.sleep(0.05)
    assert (sink.got, fixture.bus.dropped) == ([], ["the process stalled"])
    await reconnect(fixture.bus)
    await until(lambda: sink.got == [b"1"])


async def test_gap_makes_revocations_be_loaded_again(fixture: RunningFanOut) -> None:
    sink = fixture.listener("u")
    before = fixture.lines_lost_times
    fixture.bring(2)
    await until(lambda: sink.got == [b"1", b"2"])
    assert fixture.lines_lost_times == before + 1


async def test_typing_without_an_end_expires(fixture: RunningFanOut, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its replica was killed with SIGKILL."""
    monkeypatch.setattr(typing_expiry, "OVERDUE_S", 0.05)
    sink = fixture.listener("u")
    start, end = (frame("chat:typing", {"chatroomId": "r", "userId": "ann", "isTyping": on}) for on in (True, False))
    fixture.bus.on_body(Delivery(ROOM, DeliveryKind.TRANSIENT, 0, "ann", start).to_line())
    await until(lambda: sink.got == [start, end])


async def test_bad_control_line_does_not_lose_the_rest_of_its_body(fixture: RunningFanOut) -> None:
    lines = [Delivery(CONTROL_CHANNEL, DeliveryKind.CONTROL, 0, key, b"{}").to_line() for key in ("bad", "good")]
    fixture.bus.on_body(b"\n".join(line.rstrip(b"\n") for line in lines))
    assert fixture.controls == ["good"]


async def test_lost_direct_messages_arrive_before_later_ones(fixture: RunningFanOut) -> None:
    sink = fixture.user("u")
    fixture.partition.directs = away
    await reconnect(fixture.bus)
    fixture.bring_direct(3)
    await until(lambda: len(fixture.partition.directs_asked) > 2)
    assert sink.got == []
    await reconnect(fixture.bus)  # once more, before recovery from the first loss is complete
    positions = tuple(DirectMessagePosition(rev=rev, created_at_ms=1000) for rev in (1, 2))
    found = RecentDirectMessages(rooms=(DirectRoom(room_id="r", user_ids=("u", "v"), positions=positions),))
    fixture.partition.directs = lambda: found
    await until(lambda: sink.got == [b"1", b"2", b"3"])
    fixture.bring_direct(4)
    await until(lambda: sink.got[3:] == [b"4"])
    [since_ms] = {since_ms for _, since_ms in fixture.partition.directs_asked}
    assert now_ms() - since_ms >= LOST_FOR_MS
    assert {user_ids for user_ids, _ in fixture.partition.directs_asked} == {("u",)}


async def test_answer_that_predates_another_loss_releases_nothing(fixture: RunningFanOut) -> None:
    sink = fixture.user("u")
    fixture.partition.may_answer.clear()
    await reconnect(fixture.bus)
    await until(lambda: bool(fixture.partition.directs_asked))
    for hook in fixture.bus.on_disconnected:
        hook()
    fixture.partition.may_answer.set()
    fixture.bring_direct(2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert sink.got == []
    positions = (DirectMessagePosition(rev=1, created_at_ms=1000),)
    found = RecentDirectMessages(rooms=(DirectRoom(room_id="r", user_ids=("u", "v"), positions=positions),))
    fixture.partition.directs = lambda: found
    for connected in fixture.bus.on_connected:
        await connected()
    await until(lambda: sink.got == [b"1", b"2"])


async def test_answer_in_the_same_turn_as_another_loss_releases_nothing(fixture: RunningFanOut) -> None:
    sink = fixture.user("u")
    fixture.partition.may_answer.clear()
    await reconnect(fixture.bus)
    await until(lambda: bool(fixture.partition.directs_asked))
    fixture.partition.may_answer.set()
    for _ in range(3):
        await asyncio.sleep(0)
        for hook in fixture.bus.on_disconnected:
            hook()
    fixture.bring_direct(2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert sink.got == []


async def test_direct_messages_continue_after_final_refusal(fixture: RunningFanOut) -> None:
    sink = fixture.user("u")
    fixture.partition.directs = refused
    await reconnect(fixture.bus)
    fixture.bring_direct(2)
    assert sink.got == []
    await until(lambda: sink.got == [b"2"])


async def test_first_connection_withholds_no_direct_message() -> None:
    async with started() as fixture:
        await reconnect(fixture.bus)
        assert fixture.recovery._directs_lost_since_ms is None
        sink = fixture.user("u")
        fixture.bring_direct(1)
        await until(lambda: sink.got == [b"1"])


def refused() -> RecentDirectMessages:
    raise Refusal(ErrorCode.INTERNAL, "an error")


def away() -> RecentDirectMessages:
    raise Unavailable("unavailable")
