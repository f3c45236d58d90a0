"""Commands and options of the command line."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from shared.tokens import DEFAULT_TTL_S

DESCRIPTION = """Talk to a running realtime system.

Addresses and the signing secret come from the environment (GATEWAY_URL, AMQP_URL, JWT_SECRET or REALTIME_TOKEN; for
`doctor` also ADMIN_URLS, MONGODB_URI and MONGODB_DATABASE), otherwise from .local/run.env, which `make run` writes."""

EPILOG = (
    "exit codes: 0 success, 1 refused, 2 invalid usage or settings, 3 gateway or broker unavailable, 130 interrupted"
)


class _OneLineErrorParser(argparse.ArgumentParser):
    """Prints errors on one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message."""
        self.exit(2, f"realtime: {message}; see {self.prog} --help\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments. Exits with code 2 if they are invalid."""
    parser = _OneLineErrorParser("realtime", description=DESCRIPTION, epilog=EPILOG, formatter_class=_AS_WRITTEN)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--as", dest="user", default="operator", metavar="USER", help="act as this user (default: operator)"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _token(commands.add_parser("token", help="print a token"))
    _rooms(commands.add_parser("rooms", help="list the rooms visible to the user"))
    presence = commands.add_parser("presence", help="show who is online")
    presence.add_argument("users", nargs="+", metavar="USER")
    send = commands.add_parser("send", help="send a message to a room")
    send.add_argument("room", metavar="ROOM")
    send.add_argument("text", metavar="TEXT")
    send.add_argument("--id", metavar="ID", help="clientMessageId: sends with the same id store one message")
    _search(commands.add_parser("search", help="find messages by their words"))
    _tail(commands.add_parser("tail", help="print live events of rooms and symbols"))
    _publish(commands.add_parser("publish", help="publish an internal event to realtime.events"))
    _dead(commands.add_parser("dead", help="list and replay dead letters"))
    _doctor(commands.add_parser("doctor", help="look for what is wrong with a running system; changes nothing"))
    return parser.parse_args(arguments)


_AS_WRITTEN = argparse.RawDescriptionHelpFormatter
_Add = argparse.ArgumentParser


def _token(parser: _Add) -> None:
    parser.add_argument("subject", metavar="USER")
    for name in ("first", "last", "avatar", "role"):
        parser.add_argument(f"--{name}", default="", metavar="TEXT")
    parser.add_argument("--communities", default="", metavar="A,B", help="percent-encode a comma in an id")
    parser.add_argument(
        "--ttl", type=_positive, default=DEFAULT_TTL_S, metavar="SECONDS", help="lifetime (default: one day)"
    )


def _rooms(parser: _Add) -> None:
    parser.add_argument("--q", metavar="TEXT", help="the start of any word in the name")
    parser.add_argument("--type", choices=("public", "private", "group"))
    parser.add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="number of rooms (default: 20, maximum: 100)"
    )


def _search(parser: _Add) -> None:
    parser.add_argument("text", metavar="TEXT", help="every word must occur; the last may be the beginning of a word")
    parser.add_argument("--room", metavar="ROOM", help="only in this room (default: all rooms of the user)")
    parser.add_argument("--author", metavar="USER", help="only messages of this user; with --room")
    parser.add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="number of messages (default: 20, maximum: 100)"
    )


def _tail(parser: _Add) -> None:
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a room's id, or a symbol such as EUR/USD")
    parser.add_argument("--community", action="append", default=[], metavar="ID")
    parser.add_argument("--notifications", action="store_true", help="events for the user and for everyone")
    parser.add_argument("--count", type=_positive, metavar="N", help="stop after N events")


def _publish(parser: _Add) -> None:
    parser.add_argument("type", metavar="TYPE", help="event type, for example post.created")
    parser.add_argument("data", metavar="DATA", help="a JSON object, or - to read it from standard input")
    parser.add_argument(
        "--audience", metavar="A", help="user:ID, users:ID,ID (percent-encoded), room:ID, community:ID or all"
    )
    parser.add_argument("--id", metavar="ID", help="event id: events with the same id are processed once")
    parser.add_argument("--source", default="/realtime/cli", metavar="SOURCE")


def _dead(parser: _Add) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="list dead letters, oldest first (default)")
    replay = actions.add_parser("replay", help="return dead letters to their queues")
    chosen = replay.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true")
    chosen.add_argument(
        "--number", type=_positive, action="append", metavar="N", help="number in the output of `dead list`"
    )


def _doctor(parser: _Add) -> None:
    parser.add_argument(
        "--admin",
        action="append",
        default=[],
        metavar="URL",
        help="the admin address of processes, such as http://gateway:9100; a name stands for all of its addresses. "
        "Default: ADMIN_URLS, which commas separate",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number from 1"  # the name in argparse's error message
