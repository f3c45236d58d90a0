"""Beats on the exchange `realtime.beats`, which every gateway and every chat_service replica receives. Pure.

A replica beats five times a second: gateways learn from it where to send commands, replicas learn who lives. A gateway
beats once a second: owners learn from it how its clock relates to theirs (see `chat_service.command_age`).
"""

import msgspec

from shared.errors import Malformed
from shared.protocol.wire_struct import WireStruct


class Given(WireStruct, frozen=True, kw_only=True, array_like=True):
    """A partition that was handed over to another replica."""

    partition: int
    node: str
    queue: str
    term: int


class ReplicaBeat(WireStruct, frozen=True, kw_only=True, omit_defaults=True, tag_field="beat", tag="replica"):
    """A living chat_service replica: its queue, and the fencing token (term) of each partition that it owns.

    `given` are the partitions that it handed over lately. `is_leaving`: it stops, and owns nothing any more. `wall_ms`
    is the time of the database server as the replica knows it: gateways measure the skew of their own clocks by it.
    """

    node: str
    queue: str
    terms: dict[int, int] = msgspec.field(default_factory=dict)
    given: tuple[Given, ...] = ()
    is_leaving: bool = False
    wall_ms: int = 0


class GatewayBeat(WireStruct, frozen=True, kw_only=True, tag_field="beat", tag="gateway"):
    """A living gateway process, and the time of its monotonic clock in milliseconds."""

    gateway: str
    sent_at_ms: int


class ProfileBeat(WireStruct, frozen=True, kw_only=True, tag_field="beat", tag="profile"):
    """A profile that was stored: replicas that remember the user take it over. `profile` as stored."""

    user_id: str
    profile: msgspec.Raw


Beat = ReplicaBeat | GatewayBeat | ProfileBeat

_decoder: "msgspec.json.Decoder[Beat]" = msgspec.json.Decoder(Beat)


def decode_beat(body: bytes) -> Beat:
    """Return the beat in a body. Raises Malformed."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"not a beat: {error}") from error
