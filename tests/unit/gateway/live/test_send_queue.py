"""The send queue of a slow socket."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.batch import DropPolicy, Item
from gateway.live.send_queue import SEND_QUEUE_MAX_BYTES, SendQueue

NEVER, HELD, CONFLATE, SHED = DropPolicy


def lossless(data: bytes) -> Item:
    return Item(NEVER, "", data)


def price(symbol: str, data: bytes) -> Item:
    return Item(CONFLATE, symbol, data)


def test_lossless_items_are_queued_in_order() -> None:
    queue = SendQueue()
    assert queue.add([lossless(b"1"), lossless(b"2")])
    assert queue.add([lossless(b"3")])
    assert queue.take(1000) == b"123"
    assert not queue


def test_only_the_newest_price_of_a_symbol_is_queued() -> None:
    queue = SendQueue()
    queue.add([price("EUR", b"e1"), price("GBP", b"g1"), price("EUR", b"e2")])
    assert (queue.take(1000), queue.conflated, queue.size_bytes) == (b"e2g1", 1, 0)


def test_transient_items_are_dropped_and_counted() -> None:
    queue = SendQueue()
    assert queue.add([Item(SHED, "", b"typing")])
    assert (bool(queue), queue.dropped, queue.size_bytes) == (False, 1, 0)


def test_add_reports_overflow() -> None:
    queue = SendQueue(max_bytes=4)
    assert queue.add([lossless(b"1234")])
    assert not queue.add([lossless(b"5")])
    assert SEND_QUEUE_MAX_BYTES == 1024 * 1024


def test_items_of_a_replay_keep_their_place_and_do_not_count() -> None:
    queue = SendQueue(max_bytes=4)
    assert queue.add([lossless(b"1"), Item(HELD, "", b"missed 1 "), Item(HELD, "", b"missed 2 "), lossless(b"2")])
    assert queue.size_bytes == 2
    assert queue.take(1000) == b"1missed 1 missed 2 2"
    assert queue.size_bytes == 0


def test_prices_alone_do_not_grow_the_outbox() -> None:
    queue = SendQueue(max_bytes=10)
    assert all(queue.add([price("EUR", b"%010d" % number)]) for number in range(1000))
    assert queue.take(1) == b"0000000999"


def test_at_least_one_item_is_taken_however_large() -> None:
    queue = SendQueue()
    queue.add([lossless(b"large"), lossless(b"x")])
    assert queue.take(1) == b"large"
    assert queue.take(0) == b"x"
    assert queue.take(1) == b""


def test_taken_price_is_not_conflated_with_the_next() -> None:
    queue = SendQueue()
    queue.add([price("EUR", b"1")])
    assert queue.take(1) == b"1"
    queue.add([price("EUR", b"2")])
    assert (queue.take(1), queue.conflated) == (b"2", 0)


policies = st.sampled_from([(NEVER, ""), (CONFLATE, "EUR"), (CONFLATE, "GBP"), (SHED, "")])
items = st.tuples(policies, st.integers(1, 40))
steps = st.lists(st.one_of(st.lists(items, max_size=5), st.integers(0, 100)), max_size=40)


@given(steps, st.integers(1, 300))
def test_order_bound_and_conflation_hold_for_any_sequence(script: list[object], max_bytes: int) -> None:
    queue = SendQueue(max_bytes)
    number = 0
    received = b""
    expected_lossless: list[int] = []
    newest: dict[str, int] = {}
    for step in script:
        if isinstance(step, int):
            taken = queue.take(step)
            received += taken
            continue
        batch = []
        assert isinstance(step, list)
        for (policy, key), size in step:
            number += 1
            data = f"{policy.name}{key}:{number}".encode().ljust(size, b".") + b"\n"
            batch.append(Item(policy, key, data))
            if policy is NEVER:
                expected_lossless.append(number)
            elif policy is CONFLATE:
                newest[key] = number
        kept = queue.add(batch)
        assert kept == (queue.size_bytes <= max_bytes)
        if not kept:
            return  # the socket is closed; nothing is taken any more
    rest = queue.size_bytes
    tail = queue.take(10**9)
    assert len(tail) == rest
    assert queue.size_bytes == 0
    names = [(line.partition(b":")[0], int(line.partition(b":")[2].strip(b"."))) for line in (received + tail).split()]
    assert [at for name, at in names if name == b"NEVER"] == expected_lossless
    for key, last in newest.items():
        prices = [at for name, at in names if name == f"CONFLATE{key}".encode()]
        assert prices == sorted(prices)
        assert prices[-1] == last
    assert not any(name == b"SHED" for name, _ in names)
