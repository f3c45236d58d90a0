"""Commands that wait for a reply: answered, late, or cut off from their reply queue."""

import asyncio

import msgspec
import pytest

from shared.bus.pending_requests import PendingRequests, read_reply
from shared.commands.chat_queries import GetPresence
from shared.commands.command import GATEWAY, Reply, reply_line
from shared.errors import Unavailable

DEADLINE_MS = 5_000


class NumberedAnswer(msgspec.Struct):
    """A reply's data."""

    value: int


def command(id_: str) -> GetPresence:
    return GetPresence(id=id_, caller=GATEWAY, request_id=None, deadline_ms=DEADLINE_MS, user_ids=())


def expecting(*ids: str) -> "tuple[PendingRequests, list[asyncio.Future[Reply]]]":
    pending = PendingRequests()
    return pending, [pending.expect(command(id_), None) for id_ in ids]


async def test_body_answers_each_of_its_commands() -> None:
    pending, (first, second) = expecting("cmd_1", "cmd_2")
    pending.take(b"\n".join([reply_line("cmd_2", NumberedAnswer(2)), reply_line("cmd_1", NumberedAnswer(1))]))
    assert read_reply(await first, NumberedAnswer) == NumberedAnswer(1)
    assert read_reply(await second, NumberedAnswer) == NumberedAnswer(2)


async def test_late_command_fails() -> None:
    pending, (waiting,) = expecting("cmd_1")
    pending.end_late(DEADLINE_MS - 1)
    assert not waiting.done()
    pending.end_late(DEADLINE_MS)
    with pytest.raises(Unavailable, match="no answer in time"):
        await waiting


async def test_lost_connection_fails_every_command_at_once() -> None:
    pending, waiting = expecting("cmd_1", "cmd_2")
    pending.fail_all("the connection was lost")
    for future in waiting:
        with pytest.raises(Unavailable, match="the connection was lost"):
            await future
    pending.take(reply_line("cmd_1", NumberedAnswer(1)))  # an answer that comes after all has no caller
    pending.end_late(DEADLINE_MS)


def test_answer_of_another_release_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="another release"):
        read_reply(Reply(id="cmd_1", data=msgspec.Raw(b'{"value":"text"}')), NumberedAnswer)
