"""Who listens to what, and what they get, under any interleaving of deliveries, losses and subscribers."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.fanout.batch import Batch
from gateway.fanout.hub import GATHER_MIN_S, OVERDUE_S, SEEN_KEYS_MAX, Hub
from gateway.fanout.resequencer import Gap
from gateway.fanout.wire import text_frame
from shared.bus.delivery import (
    Delivery,
    DeliveryClass,
    community_channel,
    market_channel,
    room_channel,
    user_channel,
)
from shared.commands.chat import DirectPost

ROOM = room_channel("r")
LOSSLESS, LATEST, TRANSIENT = DeliveryClass.LOSSLESS, DeliveryClass.LATEST, DeliveryClass.TRANSIENT


class Sink:
    """A socket that keeps what it gets, frame by frame."""

    def __init__(self, user_id: str, session_id: str = "") -> None:
        self.user_id = user_id
        self.session_id = session_id or f"sess_{user_id}"
        self.opened_ms = 0
        self.got: list[str] = []
        self.writes = 0
        self.ended: list[str] = []
        self.is_stranded = False

    def write(self, batch: Batch) -> None:
        assert batch.data == b"".join(item.data for item in batch.items), "data is not its items joined"
        assert batch.items, "an empty write"
        self.writes += 1
        for item in batch.items:
            payload = item.data[2:]
            assert item.data == text_frame(payload)
            self.got.append(payload.decode())

    def unsubscribed(self, channel: str) -> None:
        self.ended.append(channel)

    def stranded(self) -> None:
        self.is_stranded = True

    def take(self) -> list[str]:
        got, self.got = self.got, []
        return got


def message(seq: int, channel: str = ROOM, key: str = "") -> Delivery:
    return Delivery(channel, LOSSLESS, seq, key, b"%d" % seq)


def typing(text: str, without: str = "", channel: str = ROOM) -> Delivery:
    return Delivery(channel, TRANSIENT, 0, without, text.encode())


def price(seq: int, symbol: str = "EUR") -> Delivery:
    return Delivery(market_channel(symbol), LATEST, seq, symbol, b"%d" % seq)


def greeting(text: str = "subscribed") -> list[bytes]:
    return [text_frame(text.encode())]


def listener(hub: Hub, user_id: str = "u", seq: int = 0, channel: str = ROOM) -> Sink:
    sink = Sink(user_id)
    hub.join(sink, channel)
    assert hub.admit(sink, channel, seq, [], 0.0)
    return sink


def settle(hub: Hub, now_s: float) -> float:
    """Flush until nothing is due any more; returns the time."""
    while (due_s := hub.next_due_s) is not None:
        now_s = max(now_s, due_s)
        hub.flush(now_s)
    return now_s


# Rooms --------------------------------------------------------------------------------------------------------------


def test_every_listener_gets_every_message_in_one_write() -> None:
    hub = Hub()
    sinks = [listener(hub, f"u{number}") for number in range(3)]
    for seq in (1, 2, 3):
        hub.deliver(message(seq), 10.0)
    hub.flush(10.0)
    assert [(sink.got, sink.writes) for sink in sinks] == [(["1", "2", "3"], 1)] * 3


def test_what_was_written_is_counted_in_whatever_way_it_went_out() -> None:
    """Gathered, as greeting and replay, passed over for one of them, and as a price."""
    hub = Hub()
    sinks = [listener(hub, f"u{number}") for number in range(3)]
    late = Sink("late")
    hub.join(late, ROOM)
    for seq in (1, 2):
        hub.deliver(message(seq), 10.0)
    hub.deliver(typing("t", without="u1"), 10.0)
    hub.admit(late, ROOM, 0, greeting(), 10.0)
    hub.join(late, market_channel("EUR"))
    hub.attach_price(late, market_channel("EUR"), 10, 10.0)
    hub.deliver(price(1), 10.0)
    settle(hub, 10.0)
    everybody = [*sinks, late]
    assert hub.written.frames == sum(len(sink.got) for sink in everybody) == 12
    assert hub.written.writes == sum(sink.writes for sink in everybody)
    assert hub.written.size_bytes == sum(len(text_frame(got.encode())) for sink in everybody for got in sink.got)
    assert hub.written.sample is not None
    assert hub.written.sample.startswith(text_frame(b"1"))


def test_after_an_idle_moment_an_item_is_due_at_once_and_under_load_after_5_ms() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.deliver(message(1), 10.0)
    assert hub.next_due_s == 10.0
    hub.flush(10.0)
    hub.deliver(message(2), 10.001)
    assert hub.next_due_s == pytest.approx(10.0 + GATHER_MIN_S)
    hub.flush(10.004)
    assert sink.got == ["1"]
    hub.flush(10.0 + GATHER_MIN_S)
    assert sink.got == ["1", "2"]
    assert hub.next_due_s is None


def test_the_greeting_comes_first_and_then_what_came_while_it_was_asked_for() -> None:
    hub = Hub()
    sink = Sink("u")
    hub.join(sink, ROOM)
    for seq in (4, 5, 6):
        hub.deliver(message(seq), 0.0)
    assert hub.admit(sink, ROOM, 5, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "6"]


def test_who_has_left_in_the_meantime_is_not_admitted() -> None:
    hub = Hub()
    sink = Sink("u")
    hub.join(sink, ROOM)
    assert hub.leave(sink, ROOM)
    assert not hub.admit(sink, ROOM, 0, greeting(), 0.0)
    assert not hub.attach(sink, ROOM, greeting())
    assert hub.attach_price(sink, ROOM, 1.0, 0.0) is None
    assert sink.got == []


def test_who_was_promised_more_than_has_come_waits_for_it() -> None:
    hub = Hub()
    old = listener(hub, "old", seq=1)
    new = Sink("new")
    hub.join(new, ROOM)
    hub.admit(new, ROOM, 3, greeting(), 0.0)
    for seq in (2, 3, 4):
        hub.deliver(message(seq), 0.0)
    settle(hub, 0.0)
    assert old.got == ["2", "3", "4"]
    assert new.got == ["subscribed", "4"]


def test_what_was_promised_and_does_not_come_is_a_gap_after_a_second() -> None:
    hub = Hub()
    old = listener(hub, "old", seq=1)
    new = Sink("new")
    hub.join(new, ROOM)
    hub.admit(new, ROOM, 3, [], 5.0)
    hub.overdue(5.0 + OVERDUE_S)
    assert hub.gaps == set()
    hub.overdue(5.1 + OVERDUE_S)
    assert hub.gaps == {ROOM}
    gap = hub.channels[ROOM].stream.missing(ROOM)
    assert gap is not None
    assert (gap.after, gap.through) == (1, 3)
    hub.fill(gap, 2, [b"2", b"3"], 7.0)
    hub.deliver(message(4), 7.0)
    settle(hub, 7.0)
    assert (old.got, new.got) == (["2", "3", "4"], ["4"])


def test_who_waits_is_admitted_also_where_what_it_waits_for_is_nowhere_to_be_had() -> None:
    hub = Hub()
    listener(hub, "old", seq=1)
    new = Sink("new")
    hub.join(new, ROOM)
    hub.admit(new, ROOM, 3, [], 0.0)
    hub.overdue(OVERDUE_S + 1)
    gap = hub.channels[ROOM].stream.missing(ROOM)
    assert gap is not None
    hub.fill(gap, gap.through + 1, [], 2.0)
    hub.deliver(message(4), 2.0)
    settle(hub, 2.0)
    assert new.got == ["4"]


def test_a_gap_is_noted_at_once_and_what_came_early_waits() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.deliver(message(3), 0.0)
    assert hub.gaps == {ROOM}
    gap = hub.channels[ROOM].stream.missing(ROOM)
    assert gap is not None
    assert (gap.after, gap.through) == (0, 2)
    settle(hub, 0.0)
    assert sink.got == []
    hub.fill(gap, 1, [b"1", b"2"], 1.0)
    settle(hub, 1.0)
    assert sink.got == ["1", "2", "3"]


def test_who_subscribes_again_while_listening_goes_on_from_where_it_stood() -> None:
    hub = Hub()
    other, sink = listener(hub, "other"), listener(hub, "u")
    hub.deliver(message(1), 0.0)
    hub.join(sink, ROOM)
    hub.deliver(message(2), 0.0)
    hub.admit(sink, ROOM, 3, greeting(), 0.0)
    hub.deliver(message(3), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1", "subscribed", "2", "3"]
    assert other.got == ["1", "2", "3"]


@pytest.mark.parametrize("others", [0, 1])
def test_what_came_early_is_not_lost_to_who_subscribes_again(others: int) -> None:
    hub = Hub()
    sinks = [listener(hub, f"other{number}", seq=5) for number in range(others)]
    sink = listener(hub, "u", seq=5)
    hub.deliver(message(7), 0.0)
    hub.join(sink, ROOM)
    if others:
        hub.deliver(message(6), 0.0)
    hub.admit(sink, ROOM, 7, greeting(), 0.0)
    if not others:
        gap = hub.channels[ROOM].stream.missing(ROOM)
        assert gap is not None
        hub.fill(gap, 6, [b"6"], 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "6", "7"]
    assert all(other.got == ["6", "7"] for other in sinks)


@pytest.mark.parametrize("others", [0, 1])
def test_what_was_lost_shows_when_somebody_subscribes_again(others: int) -> None:
    hub = Hub()
    for number in range(others):
        listener(hub, f"other{number}", seq=5)
    sink = listener(hub, "u", seq=5)
    hub.join(sink, ROOM)
    hub.admit(sink, ROOM, 6, [], 0.0)
    assert hub.gaps == {ROOM}
    assert hub.channels[ROOM].stream.missing(ROOM) == (ROOM, 5, 6)


def test_a_channel_goes_with_its_last_listener() -> None:
    hub = Hub()
    one, two = listener(hub, "one"), listener(hub, "two")
    assert not hub.leave(one, ROOM)
    assert hub.leave(two, ROOM)
    assert not hub.leave(two, ROOM)
    assert hub.channels == {}
    hub.deliver(message(1), 0.0)
    assert hub.next_due_s is None


def test_who_leaves_gets_what_has_gathered_and_no_more() -> None:
    hub = Hub()
    sink, other = listener(hub, "u"), listener(hub, "other")
    hub.deliver(message(1), 0.0)
    hub.leave(sink, ROOM)
    hub.deliver(message(2), 0.0)
    settle(hub, 0.0)
    assert (sink.got, other.got) == (["1"], ["1", "2"])


def test_a_socket_that_is_gone_leaves_every_channel() -> None:
    hub = Hub()
    sink = listener(hub, "u")
    listener(hub, "other")
    hub.join(sink, "inbox:u")
    hub.join(sink, market_channel("EUR"))
    assert sorted(hub.drop(sink)) == ["inbox:u", "market:EUR"]
    assert sink not in hub.sinks_of(ROOM)
    assert hub.drop(sink) == []


# Transient ----------------------------------------------------------------------------------------------------------


def test_a_transient_item_keeps_its_place_among_the_others() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.deliver(message(1), 0.0)
    hub.deliver(typing("a"), 0.0)
    hub.deliver(message(2), 0.0)
    hub.deliver(typing("b", without="nobody"), 0.0)
    hub.deliver(message(3), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1", "a", "2", "b", "3"]


@pytest.mark.parametrize("without", ["u1", "s1"])
def test_a_transient_item_leaves_out_a_user_or_a_session(without: str) -> None:
    hub = Hub()
    sinks = {(user, session): Sink(user, session) for user, session in (("u1", "s1"), ("u1", "s2"), ("u2", "s3"))}
    for sink in sinks.values():
        hub.join(sink, ROOM)
        hub.admit(sink, ROOM, 0, [], 0.0)
    hub.deliver(typing("x", without), 0.0)
    settle(hub, 0.0)
    for (user, session), sink in sinks.items():
        assert sink.got == ([] if without in (user, session) else ["x"])


def test_who_is_not_admitted_yet_gets_nothing_transient() -> None:
    hub = Hub()
    sink = Sink("u")
    hub.join(sink, ROOM)
    hub.deliver(typing("x"), 0.0)
    hub.deliver(typing("y", "somebody"), 0.0)
    hub.admit(sink, ROOM, 0, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed"]


# Channels without order ---------------------------------------------------------------------------------------------


def community_event(text: str, key: str) -> Delivery:
    return Delivery(community_channel("c"), LOSSLESS, 0, key, text.encode())


def test_a_repeat_of_an_unordered_item_is_dropped() -> None:
    hub = Hub()
    sink = Sink("u")
    hub.join(sink, community_channel("c"))
    hub.attach(sink, community_channel("c"), greeting())
    for text, key in (("a", "1"), ("b", "2"), ("a", "1"), ("c", ""), ("c", "")):
        hub.deliver(community_event(text, key), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "a", "b", "c", "c"]


def test_repeats_are_remembered_by_channel_and_not_for_ever() -> None:
    hub = Hub()
    sink = Sink("u")
    for name in (community_channel("c"), "all"):
        hub.join(sink, name)
        hub.attach(sink, name)
    hub.deliver(community_event("a", "1"), 0.0)
    hub.deliver(Delivery("all", LOSSLESS, 0, "1", b"b"), 0.0)
    for number in range(SEEN_KEYS_MAX):
        hub.deliver(community_event("x", f"x{number}"), 0.0)
    hub.deliver(community_event("a", "1"), 0.0)
    settle(hub, 0.0)
    assert sorted(sink.got)[:3] == ["a", "a", "b"]


def test_who_subscribes_again_to_an_unordered_channel_misses_nothing() -> None:
    hub = Hub()
    name = community_channel("c")
    sink = Sink("u")
    hub.join(sink, name)
    hub.attach(sink, name)
    hub.join(sink, name)
    hub.deliver(community_event("meanwhile", "1"), 0.0)
    assert hub.attach(sink, name, greeting())
    hub.deliver(community_event("after", "2"), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["meanwhile", "subscribed", "after"]
    assert hub.leave(sink, name)


# Prices -------------------------------------------------------------------------------------------------------------


def price_listener(hub: Hub, max_rate: float, user_id: str = "u") -> Sink:
    sink = Sink(user_id)
    hub.join(sink, market_channel("EUR"))
    hub.attach_price(sink, market_channel("EUR"), max_rate, 0.0)
    return sink


def test_the_newest_price_is_there_for_who_comes() -> None:
    hub = Hub()
    price_listener(hub, 1.0)
    hub.deliver(price(7), 0.0)
    late = Sink("late")
    hub.join(late, market_channel("EUR"))
    newest = hub.attach_price(late, market_channel("EUR"), 5.0, 0.0)
    assert newest is not None
    assert newest.data == text_frame(b"7")


def test_each_rate_has_its_own_pace_and_the_newest_price_arrives() -> None:
    hub = Hub()
    slow, fast = price_listener(hub, 1.0), price_listener(hub, 10.0)
    for step in range(1, 101):  # a hundred prices in a second
        now_s = 10.0 + step / 100
        hub.deliver(price(step), now_s)
        hub.flush(now_s)
    settle(hub, 11.0)
    assert slow.got == ["1", "100"]
    assert len(fast.got) == 11
    assert fast.got[-1] == "100"


def test_older_prices_and_repeats_are_not_shown() -> None:
    hub = Hub()
    sink = price_listener(hub, 50.0)
    now_s = 0.0
    for seq in (3, 2, 3, 4, 1):
        hub.deliver(price(seq), now_s)
        now_s = settle(hub, now_s) + 1
    assert sink.got == ["3", "4"]


def test_after_a_loss_the_newest_price_is_not_believed_until_it_is_known_again() -> None:
    hub = Hub()
    price_listener(hub, 50.0)
    hub.deliver(price(3), 0.0)
    hub.forget_prices()
    late = Sink("late")
    hub.join(late, market_channel("EUR"))
    assert hub.attach_price(late, market_channel("EUR"), 50.0, 1.0) is None
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
def test_prices_never_go_back_never_exceed_the_rate_and_the_newest_arrives(
    script: list[tuple[str, object]],
) -> None:
    hub = Hub()
    name = market_channel("EUR")
    now_s, newest = 100.0, 0
    sinks: dict[int, Sink] = {}
    rate_of: dict[int, float] = {}
    shown: dict[int, list[tuple[float, int]]] = {}  # when each price was written, since the last attach

    def collect() -> None:
        for number, sink in sinks.items():
            shown[number] += [(now_s, int(text)) for text in sink.take()]

    def advance(to_s: float) -> None:
        nonlocal now_s
        while (due_s := hub.next_due_s) is not None and due_s <= to_s:
            now_s = max(now_s, due_s)
            hub.flush(now_s)
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
                sink = sinks.setdefault(number, Sink(f"u{number}"))
                hub.join(sink, name)
                snapshot = hub.attach_price(sink, name, rate, now_s)
                rate_of[number] = rate
                shown[number] = []
                if newest and hub.channels[name].newest is not None:
                    assert snapshot is not None
                    assert snapshot.data == text_frame(b"%d" % newest)
                    shown[number] = [(float("-inf"), newest)]  # what the caller writes at once
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


# Any interleaving ---------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """A socket, and what it must have: `next` is the seq that must come next; None while it does not listen."""

    sink: Sink
    next: int | None = None
    asked: tuple[int, int | None] | None = None  # the worker's head, and `since`
    seen: list[str] = field(default_factory=list)


class World:
    """One room: the worker that numbers its messages, a bus that loses, repeats and reorders, one gateway."""

    def __init__(self, clients: int) -> None:
        self.hub = Hub()
        self.now_s = 100.0
        self.head = 0
        self.bus: list[int] = []
        self.clients = [Client(Sink(f"u{number}")) for number in range(clients)]

    def publish(self) -> None:
        self.head += 1
        self.bus.append(self.head)

    def check(self) -> None:
        """What came is what had to come."""
        for client in self.clients:
            for text in client.sink.take():
                client.seen.append(text)
                if text.startswith("since "):
                    client.next = int(text.removeprefix("since ")) + 1
                elif text.startswith("head "):
                    client.next = client.next or int(text.removeprefix("head ")) + 1
                else:
                    assert client.next == int(text), f"{client.sink.user_id} got {client.seen}"
                    client.next += 1

    def join(self, client: Client, since_back: int | None) -> None:
        """The gateway has read a subscribe frame. What it asks the worker is answered later."""
        if client.asked is not None:
            return  # frames of one socket are handled one after the other
        self.hub.join(client.sink, ROOM)
        self.check()
        client.asked = (-1, since_back)

    def answer(self, client: Client) -> None:
        """The worker answers: where the room stands now."""
        if client.asked is not None and client.asked[0] < 0:
            client.asked = (self.head, client.asked[1])

    def admit(self, client: Client) -> None:
        if client.asked is None or client.asked[0] < 0:
            return
        (head, since_back), client.asked = client.asked, None
        if since_back is None:
            frames = [f"head {head}"]
        else:
            since = max(head - since_back, 0)
            frames = [f"since {since}", *(str(seq) for seq in range(since + 1, head + 1))]
        data = [text_frame(text.encode()) for text in frames]
        assert self.hub.admit(client.sink, ROOM, head, data, self.now_s, replayed=since_back is not None)
        self.check()

    def leave(self, client: Client, *, drop: bool) -> None:
        if drop:
            self.hub.drop(client.sink)
        else:
            self.hub.leave(client.sink, ROOM)
        self.check()
        client.asked, client.next = None, None

    def carry(self, at: int, *, fate: str) -> None:
        """The bus brings one of the messages under way."""
        if not self.bus:
            return
        at = 0 if fate == "in order" else at % len(self.bus)
        seq = self.bus[at] if fate == "repeated" else self.bus.pop(at)
        if fate != "lost":
            self.hub.deliver(message(seq), self.now_s)

    def fill(self, *, partly: bool = False) -> None:
        """The relay fetches what is missing, or the first half of it."""
        for name in list(self.hub.gaps):
            self.hub.gaps.discard(name)
            channel = self.hub.channels.get(name)
            gap = None if channel is None else channel.stream.missing(name)
            if gap is not None:
                through = (gap.after + 1 + gap.through) // 2 if partly else gap.through
                frames = [b"%d" % seq for seq in range(gap.after + 1, through + 1)]
                self.hub.fill(gap._replace(through=through), gap.after + 1, frames, self.now_s)

    def wait(self, pause_s: float) -> None:
        self.now_s += pause_s
        self.hub.flush(self.now_s)
        self.check()

    def finish(self) -> None:
        """Everything under way arrives, every question is answered, every gap is filled."""
        for client in self.clients:
            self.answer(client)
            self.admit(client)
        while self.bus:
            self.carry(0, fate="in order")
        self.hub.heard(ROOM, self.head)
        for _ in range(20):
            self.wait(OVERDUE_S + 1)
            self.hub.overdue(self.now_s)
            self.fill()
        self.wait(1.0)
        assert self.hub.next_due_s is None
        for client in self.clients:
            if client.next is not None:
                assert client.next == self.head + 1, f"{client.sink.user_id} has {client.seen} of {self.head}"


whose = st.integers(0, 3)
room_steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.just("carry"), st.tuples(st.just("in order"), st.just(0))),
        st.tuples(
            st.just("carry"), st.tuples(st.sampled_from(["in order", "early", "repeated", "lost"]), st.integers(0, 5))
        ),
        st.tuples(st.just("join"), st.tuples(whose, st.none() | st.integers(0, 4))),
        st.tuples(st.just("answer"), whose),
        st.tuples(st.just("admit"), whose),
        st.tuples(st.just("subscribe"), st.tuples(whose, st.none() | st.integers(0, 4))),
        st.tuples(st.just("leave"), st.tuples(whose, st.booleans())),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, GATHER_MIN_S, 2.0])),
        st.tuples(st.just("fill"), st.booleans()),
        st.tuples(st.just("overdue"), st.none()),
    ),
    max_size=70,
)


@given(room_steps)
@example(  # two ask, a message is sent between their answers, and the later answer is first
    [
        ("join", (1, None)),
        ("answer", 1),
        ("publish", 1),
        ("subscribe", (0, None)),
        ("admit", 1),
    ]
)
def test_every_admitted_socket_gets_exactly_what_is_behind_its_seq(script: list[tuple[str, object]]) -> None:
    world = World(clients=4)
    for kind, detail in script:
        match kind, detail:
            case "publish", int(count):
                for _ in range(count):
                    world.publish()
            case "carry", (str(fate), int(at)):
                world.carry(at, fate=fate)
            case "join", (int(who), since_back):
                assert since_back is None or isinstance(since_back, int)
                world.join(world.clients[who], since_back)
            case "answer", int(who):
                world.answer(world.clients[who])
            case "admit", int(who):
                world.admit(world.clients[who])
            case "subscribe", (int(who), since_back):
                assert since_back is None or isinstance(since_back, int)
                client = world.clients[who]
                world.join(client, since_back)
                world.answer(client)
                world.admit(client)
            case "leave", (int(who), bool(drop)):
                world.leave(world.clients[who], drop=drop)
            case "wait", float(pause_s):
                world.wait(pause_s)
            case "fill", bool(partly):
                world.fill(partly=partly)
            case "overdue", _:
                world.hub.overdue(world.now_s)
    world.finish()


# Direct messages ----------------------------------------------------------------------------------------------------


def direct(seq: int, user: str) -> Delivery:
    return message(seq, user_channel(user), key="r")


def user_socket(hub: Hub, user: str, session: str = "") -> Sink:
    sink = Sink(user, session)
    hub.join(sink, user_channel(user))
    hub.attach(sink, user_channel(user))
    return sink


@pytest.mark.parametrize("order", ["a1 b1 a2 b2", "a1 a2 b1 b2", "b1 b2 a1 a2", "a1 b1 b2 a2", "a1 a2 a1 b1 b2 b1"])
def test_a_direct_message_reaches_every_socket_of_both_users_once(order: str) -> None:
    hub = Hub()
    sinks = [user_socket(hub, "a", "s1"), user_socket(hub, "a", "s2"), user_socket(hub, "b", "s3")]
    stranger = user_socket(hub, "c")
    for step in order.split():
        hub.deliver(direct(int(step[1:]), step[0]), 0.0)
    settle(hub, 0.0)
    assert [sink.got for sink in sinks] == [["1", "2"]] * 3
    assert stranger.got == []


def test_a_direct_message_comes_once_also_to_who_has_subscribed() -> None:
    hub = Hub()
    sink, other = user_socket(hub, "a"), user_socket(hub, "b")
    hub.join(sink, ROOM)
    hub.deliver(direct(1, "a"), 0.0)
    hub.deliver(direct(1, "b"), 0.0)
    hub.admit(sink, ROOM, 1, greeting(), 0.0)
    hub.deliver(direct(2, "b"), 0.0)
    hub.deliver(direct(2, "a"), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "2"]  # the first is what the answer's seq counts in
    assert other.got == ["1", "2"]


def test_a_resume_knows_which_direct_messages_the_socket_got_unasked() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.deliver(direct(3, "a"), 0.0)
    hub.deliver(direct(4, "a"), 0.0)
    hub.hold(ROOM, 1)  # a check in between changes nothing
    hub.checked(sink, ROOM, 1, 4, 0.0)
    hub.join(sink, ROOM)
    hub.deliver(direct(5, "a"), 0.0)  # waits for the answer
    assert hub.shown_unasked(sink, ROOM) == range(3, 5)
    hub.resume(sink, ROOM, 0.0)  # there was none
    hub.join(sink, ROOM)
    assert hub.shown_unasked(sink, ROOM) == range(3, 6)
    hub.admit(sink, ROOM, 5, greeting(), 0.0, replayed=True)
    hub.join(sink, ROOM)
    assert hub.shown_unasked(sink, ROOM) == range(0)  # what it asks for again, it gets again
    settle(hub, 0.0)
    assert sink.got == ["3", "4", "5", "subscribed"]


def test_a_direct_message_waits_for_a_resume_that_is_tried_again() -> None:
    hub = Hub()
    sink, other = user_socket(hub, "a"), user_socket(hub, "b")
    hub.join(sink, ROOM)
    assert not hub.resume(sink, ROOM, 0.0)
    hub.linger(sink, ROOM, 0.0)
    hub.deliver(direct(5, "a"), 0.0)
    hub.deliver(direct(5, "b"), 0.0)
    settle(hub, 0.0)
    assert (sink.got, other.got) == ([], ["5"])
    hub.join(sink, ROOM)
    assert hub.shown_unasked(sink, ROOM) == range(0)
    assert hub.given_up(100.0) == []  # it is trying
    hub.admit(sink, ROOM, 5, [*greeting(), *greeting("4"), *greeting("5")], 0.0, replayed=True)
    hub.deliver(direct(6, "a"), 0.0)
    settle(hub, 1.0)
    assert sink.got == ["subscribed", "4", "5", "6"]


def test_who_does_not_try_again_leaves_or_is_stranded_if_direct_messages_wait() -> None:
    hub = Hub()
    sink, stranger = user_socket(hub, "a"), user_socket(hub, "c")
    for one in (sink, stranger):
        hub.join(one, ROOM)
        hub.linger(one, ROOM, 0.0)
    for seq in (5, 6):
        hub.deliver(direct(seq, "a"), 0.0)
    assert hub.given_up(1.0) == []
    assert hub.given_up(11.0) == [(stranger, ROOM)]
    hub.leave(stranger, ROOM)
    hub.deliver(direct(7, "a"), 11.0)
    settle(hub, 12.0)
    assert (sink.got, stranger.got) == ([], []), "what was missed would be hidden behind them"
    assert (sink.is_stranded, stranger.is_stranded) == (True, False)
    hub.drop(sink)
    assert hub.given_up(20.0) == []


def post(seq: int, created_at_ms: int = 1000) -> DirectPost:
    return DirectPost(seq=seq, created_at_ms=created_at_ms)


def test_lost_direct_messages_of_a_room_that_is_new_are_fetched_and_come_before_later_ones() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.hold_directs()
    hub.deliver(direct(3, "a"), 0.0)
    settle(hub, 0.0)
    assert sink.got == []
    hub.catch_up("a", "r", [post(1), post(2), post(3)], 0.0)
    hub.catch_up("nobody here", "r", [post(1)], 0.0)
    hub.release_directs(0.0)
    hub.deliver(direct(4, "a"), 0.0)
    assert hub.gaps == {ROOM}
    hub.fill(Gap(ROOM, 0, 2), 1, [b"1", b"2"], 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1", "2", "3", "4"]


def test_only_who_was_connected_and_does_not_know_the_room_has_missed_direct_messages() -> None:
    hub = Hub()
    knows, late = user_socket(hub, "a", "s1"), Sink("a", "s2")
    hub.deliver(direct(4, "a"), 0.0)
    late.opened_ms = 2000
    hub.join(late, user_channel("a"))
    hub.attach(late, user_channel("a"))
    hub.hold_directs()
    hub.catch_up("a", "r", [post(3), post(4)], 0.0)
    hub.release_directs(0.0)
    hub.deliver(direct(5, "a"), 0.0)
    settle(hub, 0.0)
    assert (knows.got, late.got) == (["4", "5"], ["5"])
    assert hub.gaps == set()


def test_sockets_that_were_connected_at_different_times_catch_up_each_from_there() -> None:
    hub = Hub()
    sinks = [user_socket(hub, "a", f"s{number}") for number in range(3)]
    sinks[1].opened_ms, sinks[2].opened_ms = 2000, 3000
    hub.hold_directs()
    hub.catch_up("a", "r", [post(1, 1500), post(2, 2500), post(3, 3500)], 0.0)
    hub.release_directs(0.0)
    hub.fill(Gap(ROOM, 0, 3), 1, [b"1", b"2", b"3"], 0.0)
    settle(hub, 0.0)
    assert [sink.got for sink in sinks] == [["1", "2", "3"], ["2", "3"], ["3"]]


def test_more_than_can_be_put_aside_strands_and_is_a_gap_to_who_knows_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.fanout.hub.ASIDE_MAX_BYTES", 10)
    hub = Hub()
    knows = user_socket(hub, "a", "s1")
    hub.deliver(direct(1, "a"), 0.0)
    late = user_socket(hub, "a", "s2")
    hub.hold_directs()
    for seq in range(2, 6):
        assert not late.is_stranded
        hub.deliver(direct(seq, "a"), 0.0)
    assert (late.is_stranded, knows.is_stranded, hub.gaps) == (True, False, {ROOM})


def test_what_a_socket_had_of_a_direct_room_that_it_left_does_not_come_again() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.deliver(direct(1, "a"), 0.0)
    hub.deliver(direct(2, "a"), 0.0)
    settle(hub, 0.0)
    hub.leave(sink, ROOM)
    hub.hold_directs()
    hub.catch_up("a", "r", [post(1), post(2), post(3)], 0.0)
    hub.release_directs(0.0)
    hub.fill(Gap(ROOM, 2, 3), 3, [b"3"], 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1", "2", "3"]


def test_a_line_that_comes_late_shows_nothing_again_to_who_has_left_the_room() -> None:
    hub = Hub()
    sink, partner = user_socket(hub, "a"), user_socket(hub, "b")
    hub.deliver(direct(1, "a"), 0.0)
    hub.deliver(direct(1, "b"), 0.0)
    hub.deliver(direct(2, "b"), 0.0)  # of both: the room has come by the other's channel
    hub.leave(sink, ROOM)
    hub.deliver(direct(2, "a"), 0.0)
    hub.deliver(direct(3, "a"), 0.0)
    hub.deliver(direct(3, "b"), 0.0)
    settle(hub, 0.0)
    assert (sink.got, partner.got) == (["1", "2", "3"], ["1", "2", "3"])


def test_a_direct_message_for_nobody_here_leaves_nothing_behind() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.join(Sink("b"), user_channel("b"))  # not attached yet
    hub.deliver(direct(1, "b"), 0.0)
    assert ROOM not in hub.channels
    hub.deliver(direct(1, "a"), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1"]
    assert ROOM in hub.drop(sink)
    assert ROOM not in hub.channels


def test_where_one_users_channel_runs_ahead_the_sockets_of_both_get_all() -> None:
    hub = Hub()
    subscribed, other = user_socket(hub, "a", "s1"), user_socket(hub, "a", "s2")
    hub.join(subscribed, ROOM)
    hub.admit(subscribed, ROOM, 2, [], 0.0)  # two messages are on their way
    for seq in (1, 2, 3):
        hub.deliver(direct(seq, "a"), 0.0)
    settle(hub, 0.0)
    assert (subscribed.got, other.got) == (["3"], ["1", "2", "3"])


def test_other_items_of_a_users_channel_do_not_disturb() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.deliver(typing("read", without="", channel=user_channel("a")), 0.0)
    hub.deliver(direct(1, "a"), 0.0)
    settle(hub, 0.0)
    assert sorted(sink.got) == ["1", "read"]


direct_steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.just("carry"), st.tuples(st.sampled_from("ab"), st.booleans())),
        st.tuples(st.just("carry"), st.tuples(st.sampled_from("ab"), st.just(False))),
        st.tuples(st.just("open"), whose),
        st.tuples(st.just("close"), whose),
        st.tuples(st.just("join"), whose),
        st.tuples(st.just("admit"), whose),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, GATHER_MIN_S, 2.0])),
    ),
    max_size=60,
)


@given(direct_steps)
@example([("open", 2), ("publish", 2), ("carry", ("a", False)), ("open", 0)])  # a is behind when its socket comes
@example([("open", 1), ("publish", 1), ("open", 0), ("join", 0)])  # one subscribes while a message is on its way
def test_direct_messages_come_once_and_in_order_however_the_two_channels_run(
    script: list[tuple[str, object]],
) -> None:
    hub = Hub()
    now_s = 100.0
    head = 0
    bus: dict[str, list[int]] = {"a": [], "b": []}
    users = ["a", "a", "b", "b"]
    sinks: dict[int, Sink] = {}
    opened_at: dict[int, int] = {}
    got: dict[int, list[int]] = {}
    heads: dict[int, int] = {}  # of subscriptions under way

    def collect() -> None:
        for number, sink in sinks.items():
            got[number] += [int(text) for text in sink.take() if text != "subscribed"]

    def carry(user: str, *, repeat: bool) -> None:
        if bus[user]:
            seq = bus[user][0] if repeat else bus[user].pop(0)
            hub.deliver(direct(seq, user), now_s)

    def admit(number: int) -> None:
        if number in heads:
            assert hub.admit(sinks[number], ROOM, heads.pop(number), greeting(), now_s)

    for kind, detail in script:
        match kind, detail:
            case "publish", int(count):
                for _ in range(count):
                    head += 1
                    for user, channel in bus.items():
                        assert user in "ab"
                        channel.append(head)
            case "carry", (str(user), bool(repeat)):
                carry(user, repeat=repeat)
            case "open", int(number) if number not in sinks:
                sinks[number] = user_socket(hub, users[number], f"s{number}")
                opened_at[number], got[number] = head, []
            case "close", int(number) if number in sinks:
                hub.drop(sinks.pop(number))
                heads.pop(number, None)
            case "join", int(number) if number in sinks and number not in heads:
                room = hub.channels.get(ROOM)
                if room is None or room.position(sinks[number]) is None:
                    opened_at[number] = head  # what came before is what the answer's seq counts in
                hub.join(sinks[number], ROOM)
                heads[number] = head
            case "admit", int(number):
                admit(number)
            case "wait", float(pause_s):
                now_s += pause_s
                hub.flush(now_s)
        collect()
    for number in list(heads):
        admit(number)
    for user in bus:
        while bus[user]:
            carry(user, repeat=False)
    for _ in range(5):
        now_s += OVERDUE_S + 1
        hub.flush(now_s)
        hub.overdue(now_s)
        for name in list(hub.gaps):
            hub.gaps.discard(name)
            gap = hub.channels[name].stream.missing(name)
            if gap is not None:
                hub.fill(gap, gap.after + 1, [b"%d" % seq for seq in range(gap.after + 1, gap.through + 1)], now_s)
    collect()
    for number in sinks:
        seqs = got[number]
        assert seqs == sorted(set(seqs)), "repeated, or out of order"
        must = set(range(opened_at[number] + 1, head + 1))
        assert must <= set(seqs), f"lost: {must - set(seqs)}"
        assert not seqs or seqs == list(range(seqs[0], head + 1)), "a hole"


# One socket and the others ------------------------------------------------------------------------------------------


@given(st.permutations([0, 1, 2, 3]), st.lists(st.sampled_from(["message", "typing", "leave", "flush"]), max_size=30))
def test_what_one_socket_does_changes_nothing_for_the_others(order: list[int], script: list[str]) -> None:
    """The same deliveries, with and without a restless neighbour, write the same to the rest."""
    received = []
    for restless in (False, True):
        hub = Hub()
        sinks = [listener(hub, f"u{number}") for number in order[:3]]
        neighbour = Sink("neighbour")
        seq, now_s = 0, 0.0
        for step in script:
            match step:
                case "message":
                    seq += 1
                    hub.deliver(message(seq), now_s)
                case "typing":
                    hub.deliver(typing(f"t{seq}"), now_s)
                case "leave" if restless:
                    hub.drop(neighbour)
                    hub.join(neighbour, ROOM)
                    hub.admit(neighbour, ROOM, seq, greeting(), now_s)
                case "flush":
                    now_s += 0.01
                    hub.flush(now_s)
        settle(hub, now_s)
        received.append([sink.got for sink in sinks])
    assert received[0] == received[1]


def test_the_first_price_of_a_new_rate_keeps_the_distance_from_the_snapshot() -> None:
    hub = Hub()
    price_listener(hub, 50.0)
    hub.deliver(price(1), 10.0)
    settle(hub, 10.0)
    late = Sink("late")
    hub.join(late, market_channel("EUR"))
    assert hub.attach_price(late, market_channel("EUR"), 1.0, 10.0) is not None
    hub.deliver(price(2), 10.5)
    hub.flush(10.9)
    assert late.got == []
    hub.flush(11.0)
    assert late.got == ["2"]


def test_attempt_that_comes_to_nothing_leaves_a_listener_where_it_was() -> None:
    hub = Hub()
    sink, stranger = Sink("a"), Sink("b")
    hub.join(sink, ROOM)
    assert hub.admit(sink, ROOM, 0, [], 0.0)
    hub.join(sink, ROOM)
    hub.join(stranger, ROOM)
    hub.deliver(Delivery(ROOM, DeliveryClass.LOSSLESS, 1, "", b"one"), 0.0)
    assert hub.resume(sink, ROOM, 0.0)
    assert not hub.resume(stranger, ROOM, 0.0)
    settle(hub, 1.0)
    assert sink.got == ["one"]
    assert stranger.got == []


# Checked again ------------------------------------------------------------------------------------------------------


def test_who_is_held_sees_nothing_until_it_is_checked_and_then_goes_on() -> None:
    hub = Hub()
    stays, goes = listener(hub, "stays"), listener(hub, "goes")
    hub.deliver(message(1), 0.0)
    hub.hold(ROOM, 1)
    hub.deliver(message(2), 0.0)
    hub.deliver(Delivery(ROOM, LOSSLESS, 0, "evt_1", b"event"), 0.0)
    settle(hub, 0.0)
    assert stays.take() == goes.take() == ["1"]
    hub.checked(stays, ROOM, 1, 2, 1.0)
    hub.leave(goes, ROOM)
    hub.deliver(message(3), 1.0)
    settle(hub, 1.0)
    assert (stays.got, goes.got) == (["2", "event", "3"], [])


def test_earlier_check_frees_nobody_whom_a_later_one_holds() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.hold(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.hold(ROOM, 2)
    hub.checked(sink, ROOM, 1, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == []
    hub.checked(sink, ROOM, 2, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1"]


def test_hold_leaves_alone_who_is_joining_by_itself() -> None:
    hub = Hub()
    listener(hub, "other")
    sink = Sink("u")
    hub.join(sink, ROOM)
    hub.hold(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.checked(sink, ROOM, 1, 1, 0.0)
    assert sink.got == []
    assert hub.admit(sink, ROOM, 0, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "1"]


def test_who_asks_while_a_check_begins_has_to_ask_again() -> None:
    hub = Hub()
    again, fresh = listener(hub, "again"), Sink("fresh")
    for sink in (again, fresh):
        hub.join(sink, ROOM)
        assert not hub.overtaken(sink, ROOM)
    hub.hold(ROOM, 1)
    for sink in (again, fresh):
        assert hub.overtaken(sink, ROOM)
        assert not hub.overtaken(sink, ROOM)
    assert hub.admit(fresh, ROOM, 0, greeting(), 0.0)
    assert hub.resume(again, ROOM, 0.0)  # its attempt failed: it listened before, and waits for the check like all
    hub.deliver(message(1), 0.0)
    settle(hub, 0.0)
    assert (fresh.got, again.got) == (["subscribed", "1"], [])
    hub.checked(again, ROOM, 1, 1, 0.0)
    settle(hub, 0.0)
    assert again.got == ["1"]


def test_who_has_only_asked_is_no_listener() -> None:
    hub = Hub()
    again, held, fresh = listener(hub, "again"), listener(hub, "held"), Sink("fresh")
    hub.hold(ROOM, 1)
    hub.checked(again, ROOM, 1, 0, 0.0)
    for sink in (again, fresh):
        hub.join(sink, ROOM)
    assert set(hub.sinks_of(ROOM)) == {again, held, fresh}
    assert set(hub.listeners_of(ROOM)) == {again, held}
    assert hub.listeners_of(room_channel("never")) == []


def test_who_subscribes_again_while_held_is_admitted_by_that_answer() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.hold(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.join(sink, ROOM)
    hub.deliver(message(2), 0.0)
    hub.checked(sink, ROOM, 1, 2, 0.0)
    assert sink.got == []
    assert hub.admit(sink, ROOM, 2, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "1", "2"]


def test_attempt_that_comes_to_nothing_does_not_free_who_is_held() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.hold(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.join(sink, ROOM)
    assert hub.resume(sink, ROOM, 0.0)
    settle(hub, 0.0)
    assert sink.got == []
    hub.checked(sink, ROOM, 1, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1"]


held_steps = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.just(0)),
        st.tuples(st.just("lost"), st.just(0)),
        st.tuples(st.just("hold"), st.just(0)),
        st.tuples(st.just("checked"), st.integers(0, 2)),
        st.tuples(st.just("flush"), st.just(0)),
    ),
    max_size=40,
)


@given(held_steps)
def test_checks_cost_no_message_and_repeat_none(script: list[tuple[str, int]]) -> None:
    hub = Hub()
    sinks = [listener(hub, f"u{number}") for number in range(3)]
    head = check = 0

    def fill_gaps() -> None:
        while hub.gaps:
            gap = hub.channels[hub.gaps.pop()].stream.missing(ROOM)
            if gap is not None:
                frames = [b"%d" % seq for seq in range(gap.after + 1, gap.through + 1)]
                hub.fill(gap, gap.after + 1, frames, 0.0)

    for step, number in script:
        match step:
            case "message" | "lost":
                head += 1
                if step == "message":
                    hub.deliver(message(head), 0.0)
            case "hold":
                check += 1
                hub.hold(ROOM, check)
            case "checked":
                hub.checked(sinks[number], ROOM, check, head, 0.0)
                fill_gaps()
            case _:
                settle(hub, 0.0)
    for sink in sinks:
        hub.checked(sink, ROOM, check, head, 0.0)
    hub.heard(ROOM, head)
    fill_gaps()
    hub.overdue(OVERDUE_S + 1)
    fill_gaps()
    settle(hub, 0.0)
    assert [sink.got for sink in sinks] == [[str(seq) for seq in range(1, head + 1)]] * 3


def test_rates_are_whole_numbers() -> None:
    hub = Hub()
    for number, rate in enumerate((1.0, 1.2, 9.6, 10.0, 10.4, 49.9, 50.0)):
        price_listener(hub, rate, f"u{number}")
    assert sorted(hub.channels[market_channel("EUR")].prices) == [1 / 50, 1 / 10, 1.0]


def test_price_that_moves_again_is_not_conflated_away() -> None:
    hub = Hub()
    sink = price_listener(hub, 1.0)
    hub.deliver(price(1), 10.0)
    settle(hub, 10.0)
    marked = Delivery(market_channel("EUR"), DeliveryClass.LATEST, 2, "EUR", b'{"stale":false}')
    for delivery in (marked, price(3), price(4)):
        hub.deliver(delivery, 10.1)
    settle(hub, 12.0)
    assert sink.got == ["1", '{"stale":false}', "4"]
