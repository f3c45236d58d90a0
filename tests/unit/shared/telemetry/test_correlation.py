"""Request ids: the client's choice, and the id in every log line of a request."""

import asyncio

import pytest

from shared.commands.chat import SendMessage
from shared.commands.chat_queries import GetRoom
from shared.commands.command import Caller, command_ids_of, request_id_of
from shared.encoding import to_json
from shared.ids import Prefix, new_id
from shared.telemetry import correlation, logs

CALLER = Caller(user_id="u")


def room_query(request_id: str | None = None) -> GetRoom:
    return GetRoom(id=new_id(Prefix.COMMAND), deadline_ms=1, caller=CALLER, request_id=request_id, room_id="r")


def message() -> SendMessage:
    id_ = new_id(Prefix.MESSAGE)
    return SendMessage(
        id=id_, expires_at_monotonic_ms=1, caller=CALLER, room_id="r", message_id=id_, message='"id":"cmd_'
    )


@pytest.mark.parametrize("given", ["a", "7", "checkout-42", "7d1c0d3e-9c1e-4d7e-b0f5-0a7f1d4b3b0a", "A.b_c", "x" * 64])
def test_client_chooses_request_id(given: str) -> None:
    assert correlation.choose(given) == given


@pytest.mark.parametrize("given", [None, "", "-a", "a b", "a\nb", 'a"b', "ü", "x" * 65, "${jndi}", "a;b"])
def test_unsafe_request_id_is_replaced(given: str | None) -> None:
    chosen = correlation.choose(given)
    assert chosen.startswith("req_")
    assert correlation.choose(chosen) == chosen


async def test_request_id_is_inherited_by_started_tasks_only() -> None:
    async def seen() -> str | None:
        return correlation.current()

    with correlation.request("one"):
        started = asyncio.create_task(seen())
    assert correlation.current() is None
    assert await started == "one"
    assert await asyncio.create_task(seen()) is None


def test_log_line_within_request_has_its_id() -> None:
    with correlation.request("one"):
        assert logs._add_request(None, "info", {"event": "x"}) == {"event": "x", "request_id": "one"}
        assert logs._add_request(None, "info", {"request_id": "other"}) == {"request_id": "other"}
    assert logs._add_request(None, "info", {"event": "x"}) == {"event": "x"}


def test_request_id_of_command_is_call_or_own_id() -> None:
    assert request_id_of(room_query("call")) == "call"
    own = room_query()
    assert request_id_of(own) == own.id


def test_absent_fields_are_not_encoded() -> None:
    assert b"requestId" not in to_json(room_query())
    assert b"trace" not in to_json(room_query())
    assert b'"requestId":"call"' in to_json(room_query("call"))


def test_first_ten_command_ids_are_read_without_decoding() -> None:
    commands = [message(), *(room_query() for _ in range(20))]
    lines = [b"an event", *map(to_json, commands)]
    assert command_ids_of(lines) == [command.id for command in commands[:10]]
