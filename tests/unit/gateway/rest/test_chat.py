"""Room commands of REST live as long as those of sockets: by the gateway's monotonic clock."""

import asyncio
from typing import Any, cast

import pytest

from gateway.backend import Backend
from gateway.rest.chat import ChatCalls, NewRoom, RoomChange
from shared.commands.chat import RoomCommand
from shared.commands.command import Caller

CALLER = Caller(user_id="ann")
WALL_MS, MONOTONIC_MS = 1_790_000_000_000, 5_000


class CommandSent(Exception):
    pass


class RecordingClocks:
    """A bus and a router that only know times; `ask` keeps the command and refuses it."""

    request_timeout_s = 5.0

    def __init__(self, expires_at_ms: int) -> None:
        self.asked: list[RoomCommand] = []
        self._expires_at_ms = expires_at_ms

    def expires_at_monotonic_ms(self) -> int:
        return self._expires_at_ms

    def ask(self, command: RoomCommand) -> "asyncio.Future[Any]":
        self.asked.append(command)
        raise CommandSent


ROOM = {"chatroom_id": "room_1"}
MEMBER = {**ROOM, "user_id": "bob"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "create_room": {"body": NewRoom(name="Room", type="public")},
    "update_room": {**ROOM, "body": RoomChange(name="Other")},
    "delete_room": ROOM,
    "join_room": ROOM,
    "leave_room": ROOM,
    "add_member": {**MEMBER, "body": None},
    "remove_member": MEMBER,
}


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_deadline_is_of_monotonic_clock(name: str) -> None:
    router = RecordingClocks(MONOTONIC_MS)
    backend = Backend(cast(Any, RecordingClocks(WALL_MS)), cast(Any, router), asyncio.create_task)
    (call,) = [call for call in ChatCalls.calls() if call.name == name]
    with pytest.raises(CommandSent):
        calls = ChatCalls(cast(Any, None), backend, cast(Any, None), cast(Any, None))
        await call.handle(calls, CALLER, **ARGUMENTS[name])
    assert [command.expires_at_monotonic_ms for command in router.asked] == [MONOTONIC_MS]
