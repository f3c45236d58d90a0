"""The logs of the running system: JSON lines, by which a message can be followed; no token and no text in them."""

import json
from typing import Any

import pytest

from tests.e2e.test_whole_system import subscribed
from tests.support.local_system import LocalSystem
from tests.support.people import Person, people
from tests.support.tokens import SECRET
from tests.support.waiting import until

TEXT = "a text that is nobody's business"
Line = dict[str, Any]


def lines_of(system: LocalSystem) -> list[Line]:
    """What all services have logged so far."""
    output = (system.directory / "supervisor.out").read_text(errors="replace")
    return [json.loads(line[line.index("{") :]) for line in output.splitlines() if '"event": ' in line]


def path_of(system: LocalSystem, request_id: str) -> list[str]:
    """What was logged of a request, and by whom."""
    lines = [line for line in lines_of(system) if line.get("request_id") == request_id]
    return [f"{line['service']} {line['event']}" for line in sorted(lines, key=lambda line: str(line["timestamp"]))]


@pytest.fixture
def alice(system: LocalSystem) -> Person:
    return people(system.entries()["GATEWAY_URL"])("alice")


ASKED, DONE, ANSWERED = "gateway command_asked", "chat_service command_done", "gateway command_answered"
ARRIVED = "gateway message_arrived"


async def test_a_message_is_followed_by_its_id_from_gateway_to_worker_and_back(
    system: LocalSystem, alice: Person
) -> None:
    room = await alice.create_room()
    async with await alice.live() as live:
        await subscribed(live, "chatroom", chatroomId=room)
        ack = await live.ask("chat:send", chatroomId=room, message=TEXT)
        await live.next("chat:message")
    message_id = ack["data"]["messageId"]
    await until(lambda: {ASKED, DONE, ANSWERED, ARRIVED} <= set(path_of(system, message_id)))
    path = path_of(system, message_id)
    assert path[:2] == [ASKED, DONE]


async def test_a_rest_call_is_followed_by_the_id_that_its_client_chose(system: LocalSystem, alice: Person) -> None:
    room = await alice.create_room()
    chosen = f"order-{alice.id}"
    body = {"message": TEXT}
    status, _ = await alice.call("POST", f"/v1/chatrooms/{room}/messages", json=body, headers={"X-Request-Id": chosen})
    assert status == 201
    await until(lambda: path_of(system, chosen) == [ASKED, DONE, ANSWERED])
    await alice.call("GET", f"/v1/chatrooms/{room}", headers={"X-Request-Id": f"{chosen}-2"})
    await until(lambda: "chat_service query_answered" in path_of(system, f"{chosen}-2"))


async def test_no_log_line_has_a_token_or_a_text(system: LocalSystem, alice: Person) -> None:
    room = await alice.create_room()
    async with await alice.live() as live:
        await live.ask("chat:send", chatroomId=room, message=TEXT)
        await live.send_text('{"type": "chat:send", "message": "' + TEXT)
    output = (system.directory / "supervisor.out").read_text(errors="replace")
    assert TEXT not in output
    assert "eyJ" not in output  # how every token begins
    assert SECRET not in output
