"""Bodies of room commands, from one gateway to the owner of one partition, and their answers. Pure.

A gateway has at most one body in flight to each partition, so neither side needs a window to keep order, and bodies
grow with the load. The first line of a body is its `BodyHead`; every further line is one command.

The expiry of a room command and `sent_at_monotonic_ms` are milliseconds of the gateway's monotonic clock. The owner
never compares them with its own clock (see `chat_service.partitions.command_age`).
"""

from collections.abc import Sequence

import msgspec

from shared.encoding import to_json
from shared.errors import Malformed
from shared.protocol.wire_struct import WireStruct

COMMANDS_MAX = 500
COMMANDS_BODY_MAX_BYTES = 1024 * 1024
# From arrival at the gateway. The owner does not begin a command older than this; its database call may take 2 s more,
# so the caller waits up to 5 s.
COMMAND_TTL_MS = 3_000


class BodyHead(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line of a body. `number` grows with every body of this `gateway` (a node id) to any partition.

    The owner decides the body only under `term`; under another term it answers "moved". `is_resent`: an earlier copy
    may have been decided, so each command is first looked up by its id. Answers go to the queue `reply_to`.
    """

    gateway: str
    number: int
    partition: int
    term: int
    reply_to: str
    sent_at_monotonic_ms: int = msgspec.field(name="sentAtMs")  # an older name, kept on the wire
    is_resent: bool = False


class BodyAnswered(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """The last line of an answer. `is_moved`: no command was decided; send the body to the current owner."""

    number: int
    partition: int
    term: int
    is_moved: bool = False


_head_decoder = msgspec.json.Decoder(BodyHead)
_answered_decoder = msgspec.json.Decoder(BodyAnswered)


def encode_body(head: BodyHead, commands: Sequence[bytes]) -> bytes:
    """Return the AMQP body that carries `commands`, JSON lines without line breaks."""
    return b"\n".join((to_json(head), *commands))


def decode_body(body: bytes) -> tuple[BodyHead, list[bytes]]:
    """Return the head and the command lines of a body. Raises Malformed."""
    first, *commands = body.split(b"\n")
    try:
        return _head_decoder.decode(first), commands
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"not a body of commands: {error}") from error


def decode_answered(frame: bytes) -> BodyAnswered:
    """Return the last line of an answer, decoded. Raises Malformed."""
    try:
        return _answered_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"not the end of an answer: {error}") from error
