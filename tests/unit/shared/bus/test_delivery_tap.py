"""The tap: bodies of tapped consumers in order, every other frame to the library, however the bytes arrive."""

import asyncio
import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header
from pamqp.body import ContentBody
from pamqp.heartbeat import Heartbeat

from shared.bus.delivery_tap import HEARTBEAT_FRAME, DeliverySplitter, DeliveryTap

TAPPED, OTHER = "own.queue", "consumer"
CHANNEL = 3
PIECE = 10  # bytes of a body in one frame


def delivery(channel: int, tag: str, body: bytes) -> bytes:
    properties = header.ContentHeader(0, len(body), commands.Basic.Properties(delivery_mode=1))
    frames = [
        frame.marshal(commands.Basic.Deliver(tag, 1, False, "realtime.lines", "d.1"), channel),
        frame.marshal(properties, channel),
    ]
    pieces = (body[begin : begin + PIECE] for begin in range(0, len(body), PIECE))
    return b"".join([*frames, *(frame.marshal(ContentBody(piece), channel) for piece in pieces)])


def fed(splitter: DeliverySplitter, chunks: Sequence[bytes]) -> bytes:
    """Return the bytes passed on to the library; bodies go to their functions."""
    others = b""
    for chunk in chunks:
        passed, bodies = splitter.feed(chunk)
        others += passed
        for on_body, body in bodies:
            on_body(body)
    return others


kinds = st.sampled_from([(CHANNEL, TAPPED), (CHANNEL, OTHER), (4, TAPPED), (0, "")])


@given(st.lists(st.tuples(kinds, st.binary(max_size=35)), max_size=12), st.lists(st.integers(0, 2_000)))
def test_tapped_bodies_leave_the_stream_and_nothing_else_does(
    sent: list[tuple[tuple[int, str], bytes]], cuts: list[int]
) -> None:
    stream, expected_others, expected_bodies = b"", b"", []
    for (channel, tag), body in sent:
        data = delivery(channel, tag, body) if channel else frame.marshal(Heartbeat(), 0)
        stream += data
        if (channel, tag) == (CHANNEL, TAPPED):
            expected_bodies.append(body)
        else:
            expected_others += data
    bodies: list[bytes] = []
    splitter = DeliverySplitter()
    splitter.tap(CHANNEL, TAPPED, bodies.append)
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    chunks = [stream[begin:end] for begin, end in itertools.pairwise(places)]
    assert fed(splitter, chunks) == expected_others
    assert bodies == expected_bodies


def test_deliveries_of_two_channels_may_interleave() -> None:
    bodies: list[bytes] = []
    splitter = DeliverySplitter()
    splitter.tap(CHANNEL, TAPPED, bodies.append)
    mine, others = delivery(CHANNEL, TAPPED, b"a" * 15), delivery(5, OTHER, b"b" * 15)
    head = len(frame.marshal(commands.Basic.Deliver(TAPPED, 1, False, "realtime.lines", "d.1"), CHANNEL))
    assert fed(splitter, [mine[:head], others, mine[head:]]) == others
    assert bodies == [b"a" * 15]


class Library(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


def test_library_hears_a_heartbeat_while_only_tapped_bodies_arrive() -> None:
    library = Library()
    tap = DeliveryTap(library, asyncio.Transport())
    tap.splitter.tap(CHANNEL, TAPPED, lambda _: None)
    tap._passed_at_s = 0.0
    tap.data_received(delivery(CHANNEL, TAPPED, b"one"))
    tap.data_received(delivery(CHANNEL, TAPPED, b"two"))
    assert library.data == HEARTBEAT_FRAME


def test_body_whose_function_fails_does_not_stop_the_next() -> None:
    bodies: list[bytes] = []

    def take(body: bytes) -> None:
        if body == b"bad":
            raise ValueError
        bodies.append(body)

    tap = DeliveryTap(Library(), asyncio.Transport())
    tap.splitter.tap(CHANNEL, TAPPED, take)
    tap.data_received(delivery(CHANNEL, TAPPED, b"bad") + delivery(CHANNEL, TAPPED, b"good"))
    assert bodies == [b"good"]
