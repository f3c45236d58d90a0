"""Routing, queues, and delivery lines."""

import re
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus import delivery
from shared.bus.batching import split_lines
from shared.bus.delivery import Delivery, DeliveryKind, room_channel
from shared.bus.topology import (
    DEAD,
    EVENTS,
    OWNER_QUEUE,
    PARTITIONS,
    PRIVATE_QUEUE,
    SHARDS,
    partition_of,
    queues,
    shard_key,
    shard_of,
)
from shared.encoding import to_json
from shared.errors import Malformed, Refusal
from shared.protocol.server_frames import frame
from shared.protocol.validation import Id, Symbol, UserId, decode

fields = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), max_size=30)
frames = st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers(-(2**53), 2**53)).map(to_json)
deliveries = st.builds(Delivery, fields, st.sampled_from(DeliveryKind), st.integers(0, 2**63), fields, frames)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_partition_and_shard_are_crc32_and_in_range(text: str) -> None:
    assert partition_of(text) == crc32(text.encode()) % 16
    assert shard_of(text) == crc32(text.encode()) % 64
    assert 0 <= partition_of(text) < PARTITIONS == 16
    assert 0 <= shard_of(text) < SHARDS == 64


def test_rooms_spread_over_all_partitions_and_shards() -> None:
    rooms = [f"room_{number}" for number in range(1_000)]
    assert {partition_of(room) for room in rooms} == set(range(PARTITIONS))
    assert {shard_of(delivery.room_channel(room)) for room in rooms} == set(range(SHARDS))


def test_names_match_contract() -> None:
    assert shard_key(63) == "d.63"
    assert delivery.room_channel("r") == "room:r"
    assert delivery.user_channel("u") == "user:u"
    assert delivery.inbox_channel("u") == "inbox:u"
    assert delivery.market_channel("EUR/USD") == "market:EUR/USD"
    assert delivery.community_channel("c") == "community:c"


def test_every_lasting_queue_is_declared_once() -> None:
    names = [spec.name for spec in queues()]
    assert len(names) == len(set(names))
    expected = {
        *("chat.queries", "market.queries", "notifier.queries", "chat.presences"),
        *("notifier.events", "market.ticks", "chat.users", "realtime.dead"),
    }
    assert expected <= set(names)


def test_lasting_queues_are_on_a_majority_of_the_brokers() -> None:
    assert {spec.arguments["x-queue-type"] for spec in queues()} == {"quorum"}


def test_poison_message_is_dead_lettered() -> None:
    for name in ("notifier.events", "market.ticks", "chat.users"):
        arguments = next(spec.arguments for spec in queues() if spec.name == name)
        assert (arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"]) == ("", DEAD)
        assert isinstance(arguments["x-delivery-limit"], int)


def test_event_queues_bind_their_types() -> None:
    bindings = {spec.name: spec.bindings for spec in queues()}
    assert bindings["notifier.events"] == ((EVENTS, "#"),)
    assert bindings["market.ticks"] == ((EVENTS, "market.tick"),)
    assert bindings["chat.users"] == ((EVENTS, "user.updated"),)


def test_queues_of_a_process_are_bounded() -> None:
    for arguments in (PRIVATE_QUEUE, OWNER_QUEUE):
        assert isinstance(arguments["x-max-length-bytes"], int)
    assert OWNER_QUEUE["x-overflow"] == "reject-publish", "a command is refused rather than lost"


@given(deliveries)
def test_delivery_survives_round_trip(delivery: Delivery) -> None:
    line = delivery.to_line()
    assert b"\n" not in line
    assert Delivery.from_line(line) == delivery


class Named(msgspec.Struct):
    id: Id | None = None
    user_id: UserId | None = None
    symbol: Symbol | None = None


_named = msgspec.json.Decoder(Named)
hostile = st.text(st.sampled_from("aZ9_.:@|=+~-/^$,\t\n\r\x00\x1b\x7f \u2028\u0661\u00e9"), max_size=5) | st.text()


FIELDS = st.sampled_from(["id", "user_id", "symbol"])


@given(hostile, FIELDS, hostile.map(lambda text: frame("chat:message", {"message": text})))
def test_no_valid_id_or_text_breaks_delivery_line(name: str, field: str, data: bytes) -> None:
    try:
        decode(to_json({field: name}), _named)
    except Refusal:
        assert not re.fullmatch(r"[A-Za-z0-9]+", name) or len(name) > 32
        return
    sent = [Delivery(room_channel(name), DeliveryKind.ORDERED, 1, name, data)] * 2
    assert [Delivery.from_line(line) for line in split_lines(b"\n".join(one.to_line() for one in sent))] == sent


def test_frame_may_contain_tabs() -> None:
    assert Delivery.from_line(b"c\to\t1\tk\tone\ttwo").frame == b"one\ttwo"


@pytest.mark.parametrize(
    "line",
    [b"", b"room:1", b"room:1\to\t1\tk", b"room:1\tz\t1\tk\t{}", b"room:1\to\tone\tk\t{}", b"\xff\to\t1\tk\t{}"],
)
def test_invalid_delivery_line_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        Delivery.from_line(line)


@given(st.binary())
def test_any_bytes_are_delivery_or_malformed(line: bytes) -> None:
    try:
        delivery = Delivery.from_line(line)
    except Malformed:
        return
    assert line.count(b"\t") >= 4
    assert delivery.frame == line.split(b"\t", 4)[4]
