"""The command line `python -m gateway.cli` against the whole system."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import jwt

from deploy.local.settings import PROJECT
from shared.ids import Prefix, new_id
from shared.version import VERSION
from tests.support.events import cloud_event, publish
from tests.support.local_system import LocalSystem
from tests.support.people import people
from tests.support.tokens import SECRET
from tests.support.waiting import until_async

TIMEOUT_S = 60.0


def start(system: LocalSystem, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", *arguments],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "LOCAL_DIR": str(system.directory), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(system: LocalSystem, *arguments: str, stdin: str = "", **environment: str) -> tuple[int, str, str]:
    """Run a command and return its exit code, output and errors."""
    with start(system, *arguments, **environment) as process:
        out, err = process.communicate(stdin, timeout=TIMEOUT_S)
    return process.returncode, out, err


def records(system: LocalSystem, *arguments: str) -> list[Any]:
    """Return the JSON lines of a successful command."""
    code, out, err = run(system, "--json", *arguments)
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


async def room_of(system: LocalSystem, name: str) -> str:
    return await people(system.entries()["GATEWAY_URL"])("alice").create_room(name)


def test_gateway_accepts_printed_token(system: LocalSystem) -> None:
    code, out, _ = run(system, "token", "user_456", "--first", "John", "--communities", "a,b", "--ttl", "60")
    claims = jwt.decode(out.strip(), SECRET, algorithms=["HS256"])
    assert (code, claims["sub"], claims["firstName"], claims["communities"]) == (0, "user_456", "John", ["a", "b"])
    assert claims["exp"] - claims["iat"] == 60


async def test_rooms_prints_table_or_json(system: LocalSystem) -> None:
    name = new_id(Prefix.COMMAND)
    room = await room_of(system, name)
    (found,) = records(system, "rooms", "--q", name)
    assert (found["id"], found["name"], found["memberCount"]) == (room, name, 1)
    code, out, _ = run(system, "rooms", "--q", name)
    header, line = out.splitlines()
    assert code == 0
    assert header.split() == ["ID", "TYPE", "MEMBERS", "ONLINE", "UNREAD", "LAST", "MESSAGE", "NAME"]
    assert line.split() == [room, "public", "1", "0", "0", "-", name]


async def test_presence_follows_open_sockets(system: LocalSystem) -> None:
    bob = people(system.entries()["GATEWAY_URL"])("bob")
    async with await bob.live():

        async def seen() -> Any:
            return records(system, "presence", bob.id, "nobody")

        found = await until_async(seen, lambda found: found[0]["status"] == "online", 20.0)
    assert [user["userId"] for user in found] == [bob.id, "nobody"]
    assert found[1] == {"userId": "nobody", "status": "offline", "lastSeenAt": None}


async def test_search_prints_messages_of_a_room_or_of_all(system: LocalSystem) -> None:
    room = await room_of(system, "Searched")
    word = new_id(Prefix.COMMAND).lower()
    sent = records(system, "send", room, f"EUR/USD {word}")[0]
    for options in (("--room", room, "--author", "operator"), ()):
        found = records(system, "search", f"eur {word[:-2]}", *options)
        assert [message["id"] for message in found] == [sent["id"]]
    code, out, _ = run(system, "search", word, "--room", room)
    assert (code, out.splitlines()[1].split()[1:]) == (0, [room, "1", "operator", "EUR/USD", word])
    assert run(system, "search", word, "--author", "bob")[0] == 2


async def test_tail_shows_repeated_send_once(system: LocalSystem) -> None:
    room = await room_of(system, "Tailed")
    with start(system, "--json", "tail", room, "EUR/USD") as tailing:
        try:
            assert tailing.stdout is not None
            assert (
                json.loads(tailing.stdout.readline())["type"] == "market:price"
            )  # a price implies that both subscriptions are active
            first = records(system, "--as", "bob", "send", room, "hello", "--id", "once")
            assert records(system, "--as", "bob", "send", room, "hello", "--id", "once") == first
            frame = next(each for line in tailing.stdout if (each := json.loads(line))["type"] == "chat:message")
        finally:
            tailing.terminate()
        assert tailing.wait(TIMEOUT_S) == -signal.SIGTERM
    assert (frame["data"]["messageId"], frame["data"]["message"]) == (first[0]["id"], "hello")
    code, out, _ = run(system, "tail", "EUR/USD", "--count", "2")
    assert (code, len(out.splitlines())) == (0, 2)
    assert all(" EUR/USD " in line for line in out.splitlines())


async def test_published_event_reaches_its_user(system: LocalSystem) -> None:
    bob = people(system.entries()["GATEWAY_URL"])("bob")
    data = {"userId": bob.id, "title": "From the shell", "message": "m"}
    async with await bob.live() as client:
        await client.ask("subscribe", channel="notifications")
        code, out, err = run(system, "publish", "notification.created", "-", stdin=json.dumps(data))
        assert (code, err) == (0, "")
        assert out.startswith("evt_")
        assert (await client.data("notification:new"))["title"] == "From the shell"


async def test_dead_letters_are_listed_and_replayed(system: LocalSystem) -> None:
    run(system, "dead", "replay", "--all")  # return the dead letters of earlier tests; some may fail again
    bob = people(system.entries()["GATEWAY_URL"])("bob")
    event = new_id(Prefix.EVENT)
    await publish(system.entries()["AMQP_URL"], "quiz.opened", cloud_event(event, "quiz.opened", {"userId": bob.id}))

    async def ours() -> list[Any]:
        return [letter for letter in records(system, "dead") if event in letter["body"]]

    (letter,) = await until_async(ours, bool, 20.0)
    assert (letter["queue"], letter["reason"]) == (
        "notifier.events",
        "audience: is missing, and quiz.opened has no default",
    )
    assert await ours() == [letter]  # listing leaves the dead letter in place
    code, out, _ = run(system, "dead", "replay", "--number", str(letter["number"]))
    assert (code, out) == (0, "1 replayed\n")
    (back,) = await until_async(ours, lambda found: bool(found) and found[0]["at"] != letter["at"], 20.0)
    assert back["body"] == letter["body"]
    assert run(system, "dead", "replay", "--number", "100000")[0] == 1


def test_doctor_finds_no_error_in_a_healthy_system(system: LocalSystem) -> None:
    found = records(system, "doctor")
    assert [finding for finding in found if finding["severity"] == "error"] == []
    texts = {(finding["severity"], finding["subject"]): finding["text"] for finding in found}
    assert texts["ok", "processes"] == "gateway 2, chat_service 1, market_feed 1, notifier 1"
    assert texts["ok", "versions"] == f"every process runs {VERSION}"
    assert ("warning", "notifier") in texts  # there is only one


def test_doctor_names_what_is_wrong_and_the_remedy(system: LocalSystem) -> None:
    code, out, err = run(system, "doctor", "--admin", "http://127.0.0.1:1", AMQP_URL="amqp://nobody:x@127.0.0.1:1/")
    assert (code, err) == (1, "realtime: 6 errors\n")
    lines = out.splitlines()
    assert lines[0].startswith("error    broker: 127.0.0.1:1 is unreachable: ")
    assert lines[1].startswith("         -> BrokerLost in docs/operations.md")
    assert any(line.startswith("error    http://127.0.0.1:1: does not answer: ") for line in lines)
    code, _, err = run(system, "doctor", MONGODB_URI="postgres://here", ADMIN_URLS="nonsense")
    assert (code, err.count("MONGODB_URI:"), err.count("ADMIN_URLS:")) == (2, 1, 1)


async def test_error_prints_one_line_and_sets_exit_code(system: LocalSystem) -> None:
    nowhere = {"GATEWAY_URL": "http://127.0.0.1:9", "AMQP_URL": "amqp://127.0.0.1:9/"}
    for code, expected, arguments, environment in (
        (1, "no such room", ("send", "room_none", "hello"), {}),
        (1, "no such room", ("tail", "room_none"), {}),
        (1, "unknown symbol: NOPE", ("tail", "NOPE"), {}),
        (1, "limit", ("rooms", "--limit", "500"), {}),
        (2, "not JSON", ("publish", "a.b", "{"), {}),
        (2, "type", ("publish", "nonsense", "{}"), {}),
        (2, "GATEWAY_URL", ("rooms",), {"GATEWAY_URL": "nonsense"}),
        (2, "JWT_SECRET", ("rooms",), {"LOCAL_DIR": "/nonexistent"}),
        (3, "cannot reach", ("rooms",), nowhere),
        (3, "broker", ("dead",), nowhere),
    ):
        found, out, err = run(system, *arguments, **environment)
        assert (found, out, err.count("\n")) == (code, "", 1), (arguments, err)
        assert err.startswith("realtime: ")
        assert expected in err


def test_closed_output_pipe_is_not_an_error(system: LocalSystem) -> None:
    command = f"{sys.executable} -m gateway.cli tail EUR/USD; echo $? >&2"
    done = subprocess.run(
        ["/bin/sh", "-c", f"({command}) | head -1"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "LOCAL_DIR": str(system.directory)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.stdout.count("\n"), done.stderr) == (1, "0\n")
