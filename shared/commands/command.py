"""The head of every request over the bus, and its reply. Pure.

Service requests travel over `realtime.commands`, room commands in bodies (see `shared.commands.body`). A line is one
request as JSON with `op` naming its struct; a reply line is `{"id", "data"}` or `{"id", "error"}`. Workers ignore
unknown fields, so a newer gateway can talk to an older worker.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from shared.encoding import to_json
from shared.errors import Detail, ErrorCode, Refusal
from shared.ids import made_at_ms
from shared.protocol.server_frames import UserProfile
from shared.protocol.wire_struct import WireStruct

REPLAY_MAX = 1000  # the most frames that a resume replays
REPLAY_MAX_BYTES = 8 * 1024 * 1024
ITEM_MAX_BYTES = 64 * 1024  # reserved per message or notification; a notification's data may have 256 KB
SMALL_ANSWER_BYTES = 64 * 1024
RECORD_BYTES = 2 * 1024  # of a room or a member, at most
MESSAGE_ESTIMATE_BYTES = 16 * 1024  # of a message, whose size is known only after the read


class Caller(WireStruct, frozen=True, kw_only=True):
    """The user on whose behalf a request is sent: the token's subject and claims.

    `is_service`: the token of an internal service. `issued_at_ms` is 0 when the token has no time.
    """

    user_id: str
    is_admin: bool = False
    is_service: bool = False
    profile: UserProfile = UserProfile()
    issued_at_ms: int = 0

    @property
    def pays_only_message_rate(self) -> bool:
        """Return whether the caller is exempt from all rates except the message rate."""
        return self.is_admin or self.is_service


GATEWAY = Caller(user_id="system:gateway")  # the caller of a gateway's own requests


class BusRequest(WireStruct, frozen=True, kw_only=True, tag_field="op", omit_defaults=True):
    """The head of every request over the bus: a `ServiceRequest` or a `RoomCommand`.

    `request_id` is the id of the REST call, for logs; `trace` is the caller's span, if tracing is on.
    """

    id: str
    caller: Caller
    request_id: str | None = None
    trace: str | None = None

    @property
    def op(self) -> str:
        """Return the name of the request on the wire: the `op` field, which is the tag of its struct."""
        return str(self.__struct_config__.tag)


class ServiceRequest(BusRequest, frozen=True, kw_only=True):
    """A request that any process of a service may answer: a query, or a write such as `CreateAlert`.

    The caller gives up at `deadline_ms` of the wall clock.
    """

    deadline_ms: int

    @property
    def answer_estimate_bytes(self) -> int:
        """Return an estimate of the largest likely reply, for the byte budget."""
        return SMALL_ANSWER_BYTES


def replay_max_bytes(after: int, through: int, item_bytes: int = ITEM_MAX_BYTES) -> int:
    """Return the maximum size of the frames with `after` < position ≤ `through`, within the bounds of a replay."""
    return min(max(through - after, 1) * item_bytes, REPLAY_MAX_BYTES)


class ReplayedFrames(WireStruct, frozen=True, kw_only=True):
    """Client frames: `frames[i]` has seq `first + i`; in a room, `revs[i]` is its rev in the log."""

    first: int
    frames: tuple[msgspec.Raw, ...]
    revs: tuple[int, ...] = ()


class ReplyError(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """A refusal on the wire."""

    code: ErrorCode
    message: str
    details: tuple[Detail, ...] = ()
    retry_after_ms: int | None = None

    @classmethod
    def of(cls, refusal: Refusal) -> "ReplyError":
        """Return a refusal as it is sent."""
        return cls(
            code=refusal.code,
            message=refusal.message,
            details=refusal.details,
            retry_after_ms=refusal.retry_after_ms,
        )

    def to_refusal(self) -> Refusal:
        """Return the refusal that the caller's side raises."""
        return Refusal(self.code, self.message, details=self.details, retry_after_ms=self.retry_after_ms)


class Reply(WireStruct, frozen=True, kw_only=True):
    """A reply with either `data` or `error`."""

    id: str
    data: msgspec.Raw = msgspec.Raw()
    error: ReplyError | None = None


def request_id_of(request: BusRequest) -> str:
    """Return the id of a request for logs: that of the REST call, if there is one."""
    return request.request_id or request.id


_HEAD = re.compile(rb'\{"op":"[a-z_.]+","id":"((?:cmd|msg)_[0-9A-Z]{26})"')


def asked_at_ms(line: bytes) -> int | None:
    """Return the creation time of a line's command by its caller's clock; None for other lines. Does not decode."""
    head = _HEAD.match(line)
    return None if head is None else made_at_ms(head[1].decode())


def command_ids_of(lines: Iterable[bytes]) -> list[str]:
    """Return the ids of the first ten commands, read without decoding; other lines are skipped.

    The id of a REST call is not among them.
    """
    heads = (_HEAD.match(line) for line in lines)
    return [head[1].decode() for head in islice((head for head in heads if head is not None), 10)]


def reply_line(command_id: str, data: Any) -> bytes:
    """Return the reply to a command that succeeded."""
    return to_json({"id": command_id, "data": data})


def refusal_line(command_id: str, refusal: Refusal) -> bytes:
    """Return the reply to a command that was refused."""
    return to_json({"id": command_id, "error": ReplyError.of(refusal)})
