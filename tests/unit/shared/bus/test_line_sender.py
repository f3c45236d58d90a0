"""Confirmed sending: a destination that confirms nothing stops no other."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.bus import line_sender
from shared.bus.batching import BATCH_MAX_BYTES
from shared.bus.line_sender import Destination, LineSender, Linked
from shared.errors import Unavailable

STUCK: Destination = ("", "stuck", None)
HEALTHY: Destination = ("", "healthy", None)
BROADCAST: Destination = ("realtime.lines", None, None)


class LinkStub:
    """A broker that confirms every body at once, but those for the queue `stuck`, which wait for `unstuck`."""

    def __init__(self) -> None:
        self.unstuck = asyncio.Event()
        self.passes = b"-"  # the beginning of bodies that it confirms for `stuck` too
        self.bodies: list[tuple[str, bytes]] = []

    async def publish(self, _exchange: str, key: str, body: bytes, **_: Any) -> None:
        if key == "stuck" and not body.startswith(self.passes):
            await self.unstuck.wait()
        self.bodies.append((key, body))


class StubbedSender:
    """A sender and its broker; `failed` holds the ids of commands that were given up."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.link = LinkStub()
        self.failed: list[str] = []
        connection = cast(Linked, SimpleNamespace(link=self.link))
        self.sender = LineSender(connection, tasks, lambda ids, _: self.failed.extend(ids))

    def send(self, destination: Destination, line: bytes) -> "asyncio.Future[None]":
        return self.sender.gather(destination, destination[1] or "d.1", line).done


@pytest.fixture
async def sending(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubbedSender]:
    monkeypatch.setattr(line_sender, "STALLED_S", 0.05)
    async with asyncio.TaskGroup() as tasks:
        sending = StubbedSender(tasks)
        yield sending
        sending.link.unstuck.set()


async def test_stuck_destination_delays_and_refuses_no_other(sending: StubbedSender) -> None:
    stuck = sending.send(STUCK, b"first")
    await asyncio.sleep(0.1)
    for destination in (HEALTHY, BROADCAST):
        await asyncio.wait_for(sending.send(destination, b"passes"), 1)
    assert not stuck.done()
    with pytest.raises(Unavailable):
        await sending.send(STUCK, b"refused")
    await asyncio.wait_for(sending.send(HEALTHY, b"passes again"), 1)


async def test_destination_that_confirms_again_is_healthy_at_once(sending: StubbedSender) -> None:
    stuck = sending.send(STUCK, b"first")
    await asyncio.sleep(0.1)
    sending.link.unstuck.set()
    await stuck
    await asyncio.wait_for(sending.send(STUCK, b"second"), 1)
    assert sending.link.bodies == [("stuck", b"first"), ("stuck", b"second")]


async def test_only_commands_of_stuck_destination_fail(sending: StubbedSender) -> None:
    for destination, id_ in ((STUCK, "waits"), (HEALTHY, "passes")):
        sending.sender.gather(destination, destination[1] or "", b"command").command_ids.append(id_)
    await asyncio.sleep(0.1)
    sending.sender.fail_stalled()
    assert sending.failed == ["waits"]


async def test_stuck_body_refuses_lines_although_later_bodies_were_confirmed(sending: StubbedSender) -> None:
    """Full bodies of one destination leave side by side."""
    first = sending.send(STUCK, b"1" * BATCH_MAX_BYTES)
    sending.send(STUCK, b"2" * 10)
    await asyncio.sleep(0)
    sending.link.passes = b"3"
    later = sending.send(STUCK, b"3" * BATCH_MAX_BYTES)
    sending.send(STUCK, b"4")
    await asyncio.wait_for(later, 1)
    await asyncio.sleep(0.1)
    assert not first.done()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(sending.send(STUCK, b"refused"), 1)
