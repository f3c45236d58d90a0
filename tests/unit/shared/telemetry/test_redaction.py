"""No secret in a log, in either format, at any level, from any exception and any logger."""

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.redaction import HIDDEN, redacted, traceback_of
from tests.support.tokens import mint

TEXT = "my password is hunter2"
PASSWORD = "pa55word-of-the-broker"
TOKEN = mint("ada")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Bearer {TOKEN}, and more", f"Bearer {HIDDEN}, and more"),
        (f"['access_token', '{TOKEN}']", f"['access_token', '{HIDDEN}']"),
        ("amqp://guest:guest@broker:5672/vhost", f"amqp://{HIDDEN}@broker:5672/vhost"),
        ("mongodb+srv://u:p@ss@h1,h2/db?replicaSet=r", f"mongodb+srv://{HIDDEN}@h1,h2/db?{HIDDEN}"),
        ("url='wss://feed.example/v1?apikey=s3cret'", f"url='wss://feed.example/v1?{HIDDEN}'"),
        ("commit_refused rooms=3 ada@example.com", "commit_refused rooms=3 ada@example.com"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
    ],
)
def test_tokens_and_credentials_of_urls_are_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected


@given(st.text(st.sampled_from("ab:/@?.'\" "), max_size=40))
def test_redacting_twice_changes_nothing(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


def fail(secret: str) -> None:
    try:
        raise KeyError(secret)
    except KeyError as error:
        raise ValueError(f"wrong: {secret}") from error


def test_traceback_names_types_and_places_without_texts() -> None:
    with pytest.raises(ValueError, match="wrong") as caught:
        fail(TEXT)
    shown = traceback_of(caught.value)
    assert TEXT not in shown
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == ["KeyError", "ValueError"]
    assert f"{__file__}:" in shown
    assert "in fail" in shown


def test_groups_and_cycles_of_exceptions_end() -> None:
    first, second = ValueError(TEXT), ExceptionGroup(TEXT, [KeyError(TEXT), OSError(TEXT)])
    first.__cause__, second.__cause__ = second, first
    kinds = [line for line in traceback_of(first).splitlines() if not line.startswith(" ")]
    assert sorted(kinds) == ["ExceptionGroup", "KeyError", "OSError", "ValueError"]


PROGRAM = """
import asyncio, logging, sys, threading, warnings
from shared.telemetry import logs

logs.configure("gateway", "node_1", "debug", sys.argv[1])
TEXT, TOKEN, URL = sys.argv[2:]
log, library = logs.get("ours"), logging.getLogger("aiohttp.server")

def fail():
    local = {"text": TEXT, "url": URL}
    raise ValueError(f"{local} {TOKEN}")

try:
    fail()
except ValueError as error:
    log.exception("ours_failed")
    log.error("ours_failed", exc_info=error)
    log.warning("ours_refused", reason=f"cannot reach {URL} with {TOKEN}")
    library.exception("Unhandled %s", TEXT)
    library.error(f"Unhandled {TEXT}")
    library.error(error)
    library.debug("Client protocols %r", ["access_token", TOKEN])

async def forgotten():
    asyncio.get_running_loop().create_task(broken(), name="a task")
    await asyncio.sleep(0.01)

async def broken():
    fail()

asyncio.run(forgotten())
warnings.warn(TEXT)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_planted_secret_is_logged(format_: str) -> None:
    url = f"amqp://user:{PASSWORD}@broker/"
    program = [sys.executable, "-W", "default", "-c", textwrap.dedent(PROGRAM), format_, TEXT, TOKEN, url]
    ended = subprocess.run(program, capture_output=True, timeout=60, check=False)
    said = (ended.stdout + ended.stderr).decode()
    assert ended.returncode == 1
    for event in ("ours_failed", "ours_refused", "library_log", "uncaught"):
        assert event in said
    assert "in fail" in said
    for secret in (TEXT, "hunter2", PASSWORD, TOKEN, TOKEN.split(".")[1]):
        assert secret not in said
    if format_ == "json":
        lines: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
        assert {line["service"] for line in lines if line["event"] != "uncaught"} == {"gateway"}
        assert "Client protocols %r" in {line.get("template") for line in lines}
