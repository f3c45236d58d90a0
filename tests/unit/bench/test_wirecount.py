"""Counts of AMQP frames and database commands from bytes in arbitrary pieces."""

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.wirecount import FROM_SERVER, TO_SERVER, AmqpFrames, DatabaseCommands, WireParser
from tests.support.mongo_wire import command_of, reply_document, reply_to

PUBLISH = bytes([0, 60, 0, 40, 0, 0, 0, 0, 0])


def amqp_frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind, 0, 1]) + len(payload).to_bytes(4) + payload + b"\xce"


def command(document: dict[str, object]) -> bytes:
    """Return a command: a reply's layout with another request id."""
    return reply_to(7, document)


AMQP = b"AMQP\0\0\x09\x01" + amqp_frame(1, PUBLISH) + amqp_frame(2, b"head") + amqp_frame(3, b"body" * 9)
AMQP_KINDS = ["basic.publish", "content header", "content body", "heartbeat"]
MONGO = command({"insert": "log", "documents": []}) + command({"ping": 1}) + command({"find": "rooms", "filter": {}})


def in_pieces(parser: WireParser, data: bytes, sizes: list[int]) -> list[str]:
    kinds: list[str] = []
    at = 0
    for size in sizes:
        kinds += parser.feed(data[at : at + size])
        at += size
    return kinds + parser.feed(data[at:])


@given(st.lists(st.integers(1, 30)))
def test_amqp_frames_are_counted_across_reads(sizes: list[int]) -> None:
    assert in_pieces(AmqpFrames(TO_SERVER), AMQP + amqp_frame(8, b""), sizes) == AMQP_KINDS


def test_frames_from_broker_have_no_protocol_header() -> None:
    assert AmqpFrames(FROM_SERVER).feed(amqp_frame(1, bytes([0, 60, 0, 60]))) == ["basic.deliver"]


@given(st.lists(st.integers(1, 40)))
def test_database_commands_are_counted_across_reads(sizes: list[int]) -> None:
    assert in_pieces(DatabaseCommands(TO_SERVER), MONGO, sizes) == ["insert log", "ping", "find rooms"]


def test_database_replies_are_not_counted() -> None:
    assert DatabaseCommands(FROM_SERVER).feed(MONGO) == []


def test_command_holds_documents_sent_as_a_sequence() -> None:
    one = bson.encode({"_id": 1})
    head = command({"insert": "log"})
    sequence = b"documents\0" + one
    section = b"\x01" + (4 + len(sequence)).to_bytes(4, "little") + sequence
    message = (len(head) + len(section)).to_bytes(4, "little") + head[4:] + section
    found = command_of(message)
    assert found is not None
    assert (found.name, found.collection, found.document["documents"]) == ("insert", "log", [{"_id": 1}])


@pytest.mark.parametrize("document", [{"ok": 1.0}, {"ok": 0.0, "code": 10107}])
def test_reply_round_trips(document: dict[str, object]) -> None:
    assert reply_document(reply_to(3, document)) == document
