"""Entry point of `realtime` (`python -m gateway.cli`). `arguments` defines the commands."""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from gateway.cli import bus, show
from gateway.cli.arguments import parse
from gateway.cli.doctor.findings import Severity
from gateway.cli.doctor.probes import examine
from gateway.cli.rest import Api, room_path
from gateway.cli.settings import CliSettings, read_settings
from gateway.cli.tail import interests, tail
from shared.errors import ErrorCode, Malformed, RealtimeError, Refusal, SettingsInvalid, Unavailable
from shared.ids import Prefix, new_id
from shared.process.settings import parts_of
from shared.telemetry import logs
from shared.times import now_ms, to_iso
from shared.tokens import TokenRequest, sign

SEARCH_PAGES_MAX = 100  # pages; a page without a hit has searched 6,144 messages
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code. A failure prints one line to standard error."""
    asked = parse(sys.argv[1:] if arguments is None else arguments)
    logs.silence()  # each error is printed once, below
    try:
        _do(asked, read_settings())
        sys.stdout.flush()
    except BrokenPipeError:  # `realtime … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except RealtimeError as error:
        print(f"realtime: {show.printable('; '.join(str(error).splitlines()))}", file=sys.stderr)
        return _exit_code(error)
    return 0


def _exit_code(error: RealtimeError) -> int:
    match error:
        case Unavailable():
            return EXIT_UNAVAILABLE
        case SettingsInvalid() | Malformed():
            return EXIT_USAGE
        case _:
            return EXIT_REFUSED


def _do(asked: argparse.Namespace, settings: CliSettings) -> None:
    match asked.command:
        case "token":
            print(_signed(settings, _request(asked)))
        case "rooms":
            found = _api(asked, settings).get("/v1/chatrooms", q=asked.q, type=asked.type, limit=asked.limit)
            _print(asked, found["data"], show.rooms)
        case "presence":
            ids = ",".join(quote(user, safe="") for user in asked.users)
            found = _api(asked, settings).get("/v1/presence", ids=ids)
            _print(asked, found["data"], show.presence)
        case "send":
            message = {"message": asked.text, "clientMessageId": asked.id or new_id(Prefix.COMMAND)}
            sent = _api(asked, settings).post(f"{room_path(asked.room)}/messages", message)["data"]
            print(show.as_json(sent) if asked.json else f"{sent['id']}  seq {sent['seq']}")
        case "search":
            _print(asked, _found(asked, settings), show.messages)
        case "tail":
            _tail(asked, settings)
        case "publish":
            _publish(asked, settings)
        case "dead":
            _dead(asked, settings)
        case "doctor":
            _diagnose(asked, settings)


def _found(asked: argparse.Namespace, settings: CliSettings) -> list[Any]:
    """Return the newest hits of a search. A page may be empty and have a next one."""
    api = _api(asked, settings)
    path = "/v1/search" if asked.room is None else f"{room_path(asked.room)}/messages/search"
    author = {} if asked.author is None else {"userId": asked.author}
    if author and asked.room is None:
        raise SettingsInvalid(["--author: needs --room"])
    found: list[Any] = []
    before: str | None = None
    for _ in range(SEARCH_PAGES_MAX):
        page = api.get(path, q=asked.text, limit=asked.limit - len(found), before=before, **author)
        found += page["data"]
        before = page["pagination"].get("next")
        if before is None or len(found) >= asked.limit:
            break
    return found


# Tokens -------------------------------------------------------------------------------------------------------------


def _api(asked: argparse.Namespace, settings: CliSettings) -> Api:
    return Api(settings.gateway_url, _token(asked, settings))


def _token(asked: argparse.Namespace, settings: CliSettings) -> str:
    return settings.realtime_token or _signed(settings, TokenRequest(asked.user))


def _request(asked: argparse.Namespace) -> TokenRequest:
    communities = tuple(unquote(name.strip()) for name in asked.communities.split(",") if name.strip())
    return TokenRequest(asked.subject, asked.first, asked.last, asked.avatar, asked.role, communities, ttl_s=asked.ttl)


def _signed(settings: CliSettings, request: TokenRequest) -> str:
    """Return a signed token. Raises SettingsInvalid if there is no secret."""
    if settings.jwt_secret is None or not parts_of(settings.jwt_secret):
        raise SettingsInvalid(
            ["JWT_SECRET: is not set, and no local system was found; set JWT_SECRET or REALTIME_TOKEN"]
        )
    rules = {"JWT_ISSUER": settings.jwt_issuer or "", "JWT_AUDIENCE": settings.jwt_audience or ""}
    return sign(request, settings.jwt_secret, rules, int(time.time()))


# Live events --------------------------------------------------------------------------------------------------------


def _tail(asked: argparse.Namespace, settings: CliSettings) -> None:
    wanted = interests(asked.targets, asked.community, notifications=asked.notifications)
    if not wanted:
        raise SettingsInvalid(["TARGET: name at least one room or symbol"])

    def emit(type_: str, data: Any) -> None:
        print(show.as_json({"type": type_, "data": data}) if asked.json else show.event(type_, data), flush=True)

    asyncio.run(tail(settings.gateway_url, lambda: _token(asked, settings), wanted, asked.count, emit))


# Events and dead letters --------------------------------------------------------------------------------------------


def _publish(asked: argparse.Namespace, settings: CliSettings) -> None:
    text = sys.stdin.read() if asked.data == "-" else asked.data
    try:
        data = json.loads(text)
    except ValueError as error:
        raise Malformed(f"DATA is not JSON: {error}") from error
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": asked.id or new_id(Prefix.EVENT),
        "source": asked.source,
        "type": asked.type,
        "time": to_iso(now_ms()),
        **({"audience": asked.audience} if asked.audience is not None else {}),
        "data": data,
    }
    asyncio.run(bus.publish(settings.amqp_url, json.dumps(event).encode()))
    print(show.as_json(event) if asked.json else f"{event['id']}  published")


def _dead(asked: argparse.Namespace, settings: CliSettings) -> None:
    if asked.action == "replay":
        numbers = set(asked.number or ())
        replayed = asyncio.run(
            bus.replay_dead_letters(settings.amqp_url, lambda number, _: asked.all or number in numbers)
        )
        if numbers and not replayed:
            raise Refusal.not_found("dead letter")
        print(show.as_json({"replayed": replayed}) if asked.json else f"{replayed} replayed")
        return
    found = asyncio.run(bus.list_dead_letters(settings.amqp_url))
    records = [
        show.dead_letter(number, letter.body, letter.reason, letter.queue, letter.at_ms)
        for number, letter in enumerate(found, 1)
    ]
    _print(asked, records, show.dead_letters)


def _diagnose(asked: argparse.Namespace, settings: CliSettings) -> None:
    """Print the findings. Raises Refusal if one of them is an error."""
    findings = asyncio.run(examine(settings, asked.admin or settings.admin_urls))
    _print(asked, [finding._asdict() for finding in findings], show.findings)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if errors:
        raise Refusal(ErrorCode.CONFLICT, f"{errors} errors")


def _print(
    asked: argparse.Namespace, records: Sequence[show.Record], as_table: Callable[[Sequence[show.Record]], str]
) -> None:
    if asked.json:
        for record in records:
            print(show.as_json(record))
    else:
        print(as_table(records))


if __name__ == "__main__":
    sys.exit(main())
