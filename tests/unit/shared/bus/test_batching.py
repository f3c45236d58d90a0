"""Batching of lines into bodies: order, bounds, and when a parcel leaves."""

from hypothesis import given
from hypothesis import strategies as st

from shared.bus.batching import BATCH_MAX_BYTES, LineBatcher, Parcel, split_lines

MAX_BYTES = 4 * BATCH_MAX_BYTES
Parcels = list[Parcel[str, list[int]]]


def batcher(max_bytes: int = MAX_BYTES) -> LineBatcher[str, list[int]]:
    return LineBatcher(max_bytes)


def add(
    to: LineBatcher[str, list[int]], destination: str, line: bytes, expires_at_ms: int | None = None
) -> Parcel[str, list[int]]:
    parcel = to.add(destination, destination, line, list, expires_at_ms)
    assert parcel is not None
    return parcel


def test_idle_destination_sends_at_once() -> None:
    gathering = batcher()
    parcel = add(gathering, "a", b"one")
    assert gathering.ready() == [parcel]
    assert parcel.body() == b"one"


def test_lines_of_one_turn_share_body() -> None:
    gathering = batcher()
    assert add(gathering, "a", b"one") is add(gathering, "a", b"two")
    assert [parcel.body() for parcel in gathering.ready()] == [b"one\ntwo"]


def test_busy_destination_gathers_until_confirm() -> None:
    gathering = batcher()
    add(gathering, "a", b"one")
    (first,) = gathering.ready()
    add(gathering, "a", b"two")
    assert gathering.ready() == []
    add(gathering, "a", b"three")
    assert gathering.arrived(first)
    assert [parcel.body() for parcel in gathering.ready()] == [b"two\nthree"]


def test_destinations_do_not_wait_for_each_other() -> None:
    gathering = batcher()
    add(gathering, "a", b"one")
    gathering.ready()
    other = add(gathering, "b", b"two")
    assert gathering.ready() == [other]


def test_full_parcels_of_busy_destination_leave_and_last_waits() -> None:
    gathering = batcher()
    add(gathering, "a", b"x")
    gathering.ready()
    half = b"y" * (BATCH_MAX_BYTES // 2)
    full, last = add(gathering, "a", half), add(gathering, "a", half)
    assert gathering.ready() == [full]
    assert full is not last


def test_arrived_reports_empty_destination() -> None:
    gathering = batcher()
    add(gathering, "a", b"one")
    (parcel,) = gathering.ready()
    assert not gathering.arrived(parcel)
    assert gathering.ready() == []


def test_line_beyond_bound_is_rejected() -> None:
    gathering = batcher(max_bytes=10)
    add(gathering, "a", b"12345678")
    assert gathering.add("b", "b", b"1", list) is None
    gathering.ready()
    assert gathering.add("b", "b", b"1", list) is not None


def test_oversized_line_has_own_body() -> None:
    gathering = batcher()
    small = add(gathering, "a", b"s")
    big = add(gathering, "a", b"b" * (BATCH_MAX_BYTES + 1))
    last = add(gathering, "a", b"n")
    assert big.lines == [b"b" * (BATCH_MAX_BYTES + 1)]
    assert gathering.ready() == [small, big]
    gathering.arrived(small)
    gathering.arrived(big)
    assert gathering.ready() == [last]


def test_parcel_lists_each_key_once() -> None:
    gathering = batcher()
    for key in ("d.3", "d.1", "d.3"):
        parcel = gathering.add("deliveries", key, b"line", list)
    assert parcel is not None
    assert list(parcel.keys) == ["d.3", "d.1"]


def test_body_expires_with_its_longest_lived_line() -> None:
    gathering = batcher()
    add(gathering, "a", b"one", 500)
    add(gathering, "a", b"two", 900)
    assert add(gathering, "a", b"three", 700).expires_at_ms == 900
    assert add(gathering, "b", b"one").expires_at_ms is None


line_sizes = st.integers(0, 20).map(lambda n: n * BATCH_MAX_BYTES // 15 + 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), line_sizes),
        st.tuples(st.just("ready")),
        st.tuples(st.just("arrived"), st.integers(0, 50)),
    ),
    max_size=60,
)


@given(steps)
def test_lines_keep_order_and_bounds_hold(script: list[tuple[object, ...]]) -> None:
    gathering = batcher()
    taken: dict[str, list[bytes]] = {"a": [], "b": [], "c": []}
    sent: dict[str, list[bytes]] = {"a": [], "b": [], "c": []}
    under_way: Parcels = []
    number = 0

    def send() -> None:
        for parcel in gathering.ready():
            sent[parcel.destination] += split_lines(parcel.body())
            assert [int(line.strip(b".")) for line in parcel.lines] == parcel.waiter
            assert len(parcel.lines) == 1 or len(parcel.body()) <= BATCH_MAX_BYTES
            under_way.append(parcel)
        busy = {parcel.destination for parcel in under_way}
        assert {destination for destination in taken if taken[destination] != sent[destination]} <= busy, (
            "an idle destination holds lines back"
        )

    for step in script:
        match step:
            case ("add", str(destination), int(size)):
                number += 1
                line = str(number).encode().ljust(size, b".")
                parcel = gathering.add(destination, destination, line, list)
                if parcel is not None:
                    taken[destination].append(line)
                    parcel.waiter.append(number)
                else:
                    assert gathering.waiting_bytes + len(line) + 1 > MAX_BYTES
                assert gathering.waiting_bytes <= MAX_BYTES
            case ("ready",):
                send()
            case ("arrived", int(which)) if under_way:
                gathering.arrived(under_way.pop(which % len(under_way)))
    while under_way or taken != sent:
        send()
        while under_way:
            gathering.arrived(under_way.pop())
    assert sent == taken
    assert gathering.waiting_bytes == 0


def test_empty_body_has_no_lines() -> None:
    assert split_lines(b"") == []
