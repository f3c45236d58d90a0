"""The command line's grammar."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from shared.tokens import DEFAULT_TTL_S

DESCRIPTION = """Talk to a running realtime system.

Where it is, and the secret to sign tokens with, is taken from the environment (GATEWAY_URL, AMQP_URL, JWT_SECRET or
REALTIME_TOKEN), else from .local/run.env, which `make run` writes."""

EPILOG = """exit codes: 0 done, 1 refused, 2 wrong usage or settings, 3 gateway or broker away, 130 interrupted"""


class _Parser(argparse.ArgumentParser):
    """Errors on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"realtime: {message}; see {self.prog} --help\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments. Exits with 2 where they are wrong."""
    parser = _Parser("realtime", description=DESCRIPTION, epilog=EPILOG, formatter_class=_AS_WRITTEN)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    parser.add_argument("--as", dest="user", default="operator", metavar="USER", help="act as this user (operator)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _token(commands.add_parser("token", help="print a token"))
    _rooms(commands.add_parser("rooms", help="list the rooms that the user may see"))
    presence = commands.add_parser("presence", help="show who is online")
    presence.add_argument("users", nargs="+", metavar="USER")
    send = commands.add_parser("send", help="send a message to a room")
    send.add_argument("room", metavar="ROOM")
    send.add_argument("text", metavar="TEXT")
    send.add_argument("--id", metavar="ID", help="clientMessageId: sent again with the same, it is still one message")
    _tail(commands.add_parser("tail", help="show live events of rooms and symbols as they come"))
    _publish(commands.add_parser("publish", help="publish an internal event to realtime.events"))
    _dead(commands.add_parser("dead", help="list and replay dead letters"))
    return parser.parse_args(arguments)


_AS_WRITTEN = argparse.RawDescriptionHelpFormatter
_Add = argparse.ArgumentParser


def _token(parser: _Add) -> None:
    parser.add_argument("subject", metavar="USER")
    for name in ("first", "last", "avatar", "role"):
        parser.add_argument(f"--{name}", default="", metavar="TEXT")
    parser.add_argument("--communities", default="", metavar="A,B")
    parser.add_argument("--ttl", type=_positive, default=DEFAULT_TTL_S, metavar="SECONDS", help="a day, if not given")


def _rooms(parser: _Add) -> None:
    parser.add_argument("--q", metavar="TEXT", help="the start of any word of the name")
    parser.add_argument("--type", choices=("public", "private", "group"))
    parser.add_argument("--limit", type=_positive, default=20, metavar="N", help="20, if not given; 100 at most")


def _tail(parser: _Add) -> None:
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a room's id, or a symbol such as EUR/USD")
    parser.add_argument("--community", action="append", default=[], metavar="ID")
    parser.add_argument("--notifications", action="store_true", help="those of the user, and what goes to all")
    parser.add_argument("--count", type=_positive, metavar="N", help="stop after so many events")


def _publish(parser: _Add) -> None:
    parser.add_argument("type", metavar="TYPE", help="such as post.created")
    parser.add_argument("data", metavar="DATA", help="a JSON object; - reads it from standard input")
    parser.add_argument("--audience", metavar="A", help="user:ID, users:ID,ID, room:ID, community:ID or all")
    parser.add_argument("--id", metavar="ID", help="published again with the same, it is still one event")
    parser.add_argument("--source", default="/realtime/cli", metavar="SOURCE")


def _dead(parser: _Add) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="show them, oldest first; the default")
    replay = actions.add_parser("replay", help="give them back to the queues that they came from")
    chosen = replay.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true")
    chosen.add_argument("--number", type=_positive, action="append", metavar="N", help="as `dead list` shows it")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number from 1"  # what argparse calls it in its error
