"""Broadcasts on the exchange `realtime.beats`: heartbeats and stored profiles. Pure.

Every gateway and chat_service replica receives them.

A replica sends a heartbeat five times a second: gateways learn from it where to send commands, replicas which replicas
are alive. A gateway sends a heartbeat once a second: owners learn from it the offset of its clock (see
`chat_service.partitions.command_age`).
"""

import msgspec

from shared.errors import Malformed
from shared.protocol.wire_struct import WireStruct


class HandedOver(WireStruct, frozen=True, kw_only=True, array_like=True):
    """A partition that was handed over to another replica."""

    partition: int
    node: str
    queue: str
    term: int


class ReplicaBeat(WireStruct, frozen=True, kw_only=True, omit_defaults=True, tag_field="beat", tag="replica"):
    """A live chat_service replica: its queue, and the fencing token (term) of each partition that it owns.

    `handed_over` lists the partitions that it handed over recently. With `is_leaving` it is stopping and owns nothing
    any more. `database_ms` is the time of the database server as the replica knows it; gateways measure their clock
    skew by it. `generation` is that of the database: see `shared.generation_store`.
    """

    node: str
    queue: str
    terms: dict[int, int] = msgspec.field(default_factory=dict)
    handed_over: tuple[HandedOver, ...] = msgspec.field(default=(), name="given")
    is_leaving: bool = False
    database_ms: int = msgspec.field(default=0, name="wallMs")  # an older name, kept on the wire
    generation: str = ""


class GatewayBeat(WireStruct, frozen=True, kw_only=True, tag_field="beat", tag="gateway"):
    """A live gateway process, and the time of its monotonic clock."""

    gateway: str
    sent_at_monotonic_ms: int = msgspec.field(name="sentAtMs")  # an older name, kept on the wire


class ProfileUpdated(WireStruct, frozen=True, kw_only=True, tag_field="beat", tag="profile"):
    """A profile was stored: replicas replace their cached copy. `profile` is as stored."""

    user_id: str
    profile: msgspec.Raw


Broadcast = ReplicaBeat | GatewayBeat | ProfileUpdated

_decoder: "msgspec.json.Decoder[Broadcast]" = msgspec.json.Decoder(Broadcast)


def decode_broadcast(body: bytes) -> Broadcast:
    """Return the broadcast in a body. Raises Malformed."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"not a broadcast: {error}") from error
