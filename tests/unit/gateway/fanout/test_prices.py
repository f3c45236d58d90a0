"""Prices: conflation, rates and the newest price."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.hub import Hub
from gateway.fanout.wire import text_frame
from shared.bus.delivery import (
    Delivery,
    DeliveryKind,
    market_channel,
)
from tests.unit.gateway.fanout.hub_support import (
    RecordingSink,
    go_live_prices,
    price,
    settle,
)


def price_listener(hub: Hub, max_rate: float, user_id: str = "u") -> RecordingSink:
    sink = RecordingSink(user_id)
    hub.join(sink, market_channel("EUR"))
    go_live_prices(hub, sink, market_channel("EUR"), max_rate, 0.0)
    return sink


def test_new_subscriber_gets_the_newest_price() -> None:
    hub = Hub()
    price_listener(hub, 1.0)
    hub.deliver(price(7), 0.0)
    late = RecordingSink("late")
    hub.join(late, market_channel("EUR"))
    newest = go_live_prices(hub, late, market_channel("EUR"), 5.0, 0.0)
    assert newest is not None
    assert newest.data == text_frame(b"7")


def test_each_rate_is_kept_and_the_newest_price_arrives() -> None:
    hub = Hub()
    slow, fast = price_listener(hub, 1.0), price_listener(hub, 10.0)
    for step in range(1, 101):  # a hundred prices in one second
        now_s = 10.0 + step / 100
        hub.deliver(price(step), now_s)
        hub.schedule.flush(now_s)
    settle(hub, 11.0)
    assert slow.got == ["1", "100"]
    assert len(fast.got) == 11
    assert fast.got[-1] == "100"


def test_older_and_repeated_prices_are_dropped() -> None:
    hub = Hub()
    sink = price_listener(hub, 50.0)
    now_s = 0.0
    for seq in (3, 2, 3, 4, 1):
        hub.deliver(price(seq), now_s)
        now_s = settle(hub, now_s) + 1
    assert sink.got == ["3", "4"]


def test_newest_price_is_unknown_after_a_loss() -> None:
    hub = Hub()
    price_listener(hub, 50.0)
    hub.deliver(price(3), 0.0)
    hub.forget_prices()
    late = RecordingSink("late")
    hub.join(late, market_channel("EUR"))
    assert go_live_prices(hub, late, market_channel("EUR"), 50.0, 1.0) is None
    hub.deliver(price(3), 1.0)
    settle(hub, 1.0)
    assert late.got[-1:] == ["3"]


rates = st.sampled_from([1.0, 2.0, 10.0, 50.0])
price_steps = st.lists(
    st.one_of(
        st.tuples(st.just("price"), st.integers(-2, 3)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.5, 1.0])),
        st.tuples(st.just("attach"), st.tuples(st.integers(0, 3), rates)),
        st.tuples(st.just("leave"), st.integers(0, 3)),
    ),
    max_size=80,
)


@given(price_steps)
def test_prices_are_ordered_rate_limited_and_end_with_the_newest(
    script: list[tuple[str, object]],
) -> None:
    hub = Hub()
    name = market_channel("EUR")
    now_s, newest = 100.0, 0
    sinks: dict[int, RecordingSink] = {}
    rate_of: dict[int, float] = {}
    shown: dict[int, list[tuple[float, int]]] = {}  # when each price was written, since the last attach

    def collect() -> None:
        for number, sink in sinks.items():
            shown[number] += [(now_s, int(text)) for text in sink.take()]

    def advance(to_s: float) -> None:
        nonlocal now_s
        while (due_s := hub.schedule.next_due_s) is not None and due_s <= to_s:
            now_s = max(now_s, due_s)
            hub.schedule.flush(now_s)
            collect()
        now_s = max(now_s, to_s)

    for kind, detail in script:
        match kind, detail:
            case "price", int(step):
                seq = max(newest + step, 1)
                newest = max(newest, seq if hub.channels.get(name) else 0)
                hub.deliver(price(seq), now_s)
            case "wait", float(pause_s):
                advance(now_s + pause_s)
            case "attach", (int(number), float(rate)):
                sink = sinks.setdefault(number, RecordingSink(f"u{number}"))
                hub.join(sink, name)
                snapshot = go_live_prices(hub, sink, name, rate, now_s)
                rate_of[number] = rate
                shown[number] = []
                if newest and hub.channels[name].prices.newest is not None:
                    assert snapshot is not None
                    assert snapshot.data == text_frame(b"%d" % newest)
                    shown[number] = [(float("-inf"), newest)]  # the caller writes it at once
            case "leave", int(number) if number in rate_of:
                if hub.leave(sinks[number], name):
                    newest = 0
                del rate_of[number]
        collect()
    advance(now_s + 2.0)
    for number, rate in rate_of.items():
        seqs = [seq for _, seq in shown[number]]
        assert seqs == sorted(seqs), "an older price after a newer one"
        if newest:
            assert seqs[-1:] == [newest], "the newest price has not arrived"
        times = [at for at, _ in shown[number]]
        pairs = itertools.pairwise(times)
        assert all(after - before >= 1.0 / rate - 1e-9 for before, after in pairs), "faster than asked for"
    for number in set(sinks) - set(rate_of):
        assert sinks[number].got == []


def test_snapshot_counts_towards_the_rate() -> None:
    hub = Hub()
    price_listener(hub, 50.0)
    hub.deliver(price(1), 10.0)
    settle(hub, 10.0)
    late = RecordingSink("late")
    hub.join(late, market_channel("EUR"))
    assert go_live_prices(hub, late, market_channel("EUR"), 1.0, 10.0) is not None
    hub.deliver(price(2), 10.5)
    hub.schedule.flush(10.9)
    assert late.got == []
    hub.schedule.flush(11.0)
    assert late.got == ["2"]


def test_rates_are_rounded_to_whole_numbers() -> None:
    hub = Hub()
    for number, rate in enumerate((1.0, 1.2, 9.6, 10.0, 10.4, 49.9, 50.0)):
        price_listener(hub, rate, f"u{number}")
    assert sorted(hub.channels[market_channel("EUR")].prices.lanes) == [1 / 50, 1 / 10, 1.0]


def test_staleness_mark_survives_conflation() -> None:
    hub = Hub()
    sink = price_listener(hub, 1.0)
    hub.deliver(price(1), 10.0)
    settle(hub, 10.0)
    marked = Delivery(market_channel("EUR"), DeliveryKind.LATEST, 2, "EUR", b'{"stale":false}')
    for delivery in (marked, price(3), price(4)):
        hub.deliver(delivery, 10.1)
    settle(hub, 12.0)
    assert sink.got == ["1", '{"stale":false}', "4"]
