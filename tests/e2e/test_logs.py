"""Logs of the running system: JSON lines that follow a message by id and contain neither tokens nor texts."""

import json
from functools import partial
from typing import Any

import pytest

from tests.e2e.test_whole_system import subscribed
from tests.support.events import cloud_event, publish
from tests.support.local_system import LocalSystem
from tests.support.people import Person, people
from tests.support.tokens import SECRET
from tests.support.waiting import until, until_async

TEXT = "a text that is nobody's business"
Line = dict[str, Any]


def lines_of(system: LocalSystem) -> list[Line]:
    """Return all log lines of the services so far."""
    output = (system.directory / "supervisor.out").read_text(errors="replace")
    return [json.loads(line[line.index("{") :]) for line in output.splitlines() if '"event": ' in line]


def path_of(system: LocalSystem, request_id: str) -> list[str]:
    """Return the log events of one request with their services."""
    lines = [line for line in lines_of(system) if line.get("request_id") == request_id]
    return [f"{line['service']} {line['event']}" for line in sorted(lines, key=lambda line: str(line["timestamp"]))]


@pytest.fixture
def alice(system: LocalSystem) -> Person:
    return people(system.entries()["GATEWAY_URL"])("alice")


ASKED, DONE, ANSWERED = "gateway command_asked", "chat_service command_done", "gateway command_answered"
ARRIVED = "gateway message_arrived"


async def test_message_id_appears_on_its_whole_path(system: LocalSystem, alice: Person) -> None:
    room = await alice.create_room()
    async with await alice.live() as live:
        await subscribed(live, "chatroom", chatroomId=room)
        ack = await live.ask("chat:send", chatroomId=room, message=TEXT)
        await live.next("chat:message")
    message_id = ack["data"]["messageId"]
    await until(lambda: {ASKED, DONE, ANSWERED, ARRIVED} <= set(path_of(system, message_id)))
    path = path_of(system, message_id)
    assert path[:2] == [ASKED, DONE]


async def test_client_request_id_follows_rest_call(system: LocalSystem, alice: Person) -> None:
    room = await alice.create_room()
    chosen = f"order-{alice.id}"
    body = {"message": TEXT}
    status, _ = await alice.call("POST", f"/v1/chatrooms/{room}/messages", json=body, headers={"X-Request-Id": chosen})
    assert status == 201
    await until(lambda: path_of(system, chosen) == [ASKED, DONE, ANSWERED])
    await alice.call("GET", f"/v1/chatrooms/{room}", headers={"X-Request-Id": f"{chosen}-2"})
    await until(lambda: "chat_service query_answered" in path_of(system, f"{chosen}-2"))


def dead_letters_logged(system: LocalSystem) -> int:
    """Return the number of lines about dead letters."""
    return sum(line["event"] == "dead_letter" for line in lines_of(system))


async def dead_letters_after(system: LocalSystem, type_: str, body: bytes) -> int:
    """Publish an event again, since a service logs one dead letter a second, and return the number of lines."""
    await publish(system.entries()["AMQP_URL"], type_, body)
    return dead_letters_logged(system)


async def test_logs_contain_no_token_and_no_message_text(system: LocalSystem, alice: Person) -> None:
    room = await alice.create_room()
    async with await alice.live() as live:
        await live.ask("chat:send", chatroomId=room, message=TEXT)
        await live.send_text('{"type": "chat:send", "message": "' + TEXT)
    bad = {
        "notification.created": {"userId": "u", "title": "t", "message": "m", "priority": TEXT},
        "order.filled": {"note": TEXT},
        "user.updated": {"userId": f" {TEXT}"},
        "user.banned": {"userId": "u", "until": TEXT},
        "market.tick": {"symbol": TEXT, "price": 1},
    }
    for type_, data in bad.items():
        body = cloud_event(f"{alice.id}-{type_}", type_, data, audience=f"user:{TEXT}\n")
        await until_async(partial(dead_letters_after, system, type_, body), dead_letters_logged(system).__lt__)
    output = (system.directory / "supervisor.out").read_text(errors="replace")
    assert TEXT not in output
    assert "eyJ" not in output  # the prefix of every token
    assert SECRET not in output
